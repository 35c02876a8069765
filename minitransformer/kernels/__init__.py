"""Every formula, forward and backward, on raw arrays.

A kernel is a pair of plain functions::

    y, saved = layer_norm_forward(x, weight, bias, eps=1e-5)
    dx, dweight, dbias = layer_norm_backward(dy, saved)

The contract, each line of which ``tests/test_contract.py`` and
``tests/kernels/test_kernels.py`` hold against every kernel:

1. ``op_forward(*arrays, **options) -> (out, saved)`` and ``op_backward(dout, saved)``
   returns a tuple with one gradient per positional array, in order, ``None`` where
   there is nothing to differentiate.
2. Inputs, ``dout`` and ``saved`` are never written to.
3. The type out is the type in.
4. No tensor, no global state, no hidden randomness: a kernel that draws takes a ``key``.
5. One formula for NumPy and CuPy, through ``xp = array_module(x)``.

Symbols are the papers': ``Q K V S P O``, ``x_hat``, ``rstd``; the gradient of ``name`` is
``dname``. Shapes use one legend:

===  ==================  ===  ====================  ===  =====================
B    batch               E    size of a head        F    feed-forward size
H    heads               Ev   size of its values    V    vocabulary
G    key-value heads     D    size of the model     N    rows, B · L together
L    query length        S    key length
===  ==================  ===  ====================  ===  =====================

There are no second derivatives: a backward function is arithmetic on arrays, not
an operation on the tape.
"""
