"""A canonical form of typed terms, so that equal formulas become equal trees.

Every term is written out in index notation: a matrix product becomes a sum over
a shared index, a transpose disappears, a softmax becomes e^a / Σ e^a. What is left
is scalar algebra with sums, brought to a sum of monomials whose factors are sorted
and whose summation indices are named by position. Only identities that hold for
all real inputs are used (powers are merged only where the base is positive), so
equal canonical forms are a proof; unequal ones prove nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from minitransformer.verify.dimensions import Term

# An atom is a tuple whose first entry says what it is; a monomial is
# (bound, factors): bound a tuple of (index, dimension), factors a sorted tuple of
# (atom, exponent); a polynomial maps monomials to rational coefficients.
Atom = tuple[Any, ...]
Mono = tuple[tuple[tuple[str, str], ...], tuple[tuple[Atom, Fraction], ...]]
Poly = dict[Mono, Fraction]

ONE: Mono = ((), ())
LIMIT = 150  # monomials of one polynomial before giving up


class NoForm(Exception):
    """The term lies outside what the canonical form covers."""


def canonical(term: Term, positive: frozenset[str] = frozenset()) -> Any:
    """Return a hashable canonical form, or None where there is none.

    Parameters
    ----------
    term : Term
        A typed term.
    positive : frozenset of str
        Symbols whose every entry is known to be positive.
    """
    builder = _Builder(positive)
    try:
        poly = builder.build(term, tuple(f"%{k}" for k in range(len(term.dims))), {})
        return (term.dims, _freeze(poly))
    except (NoForm, RecursionError):
        return None


def _freeze(poly: Poly) -> tuple[Any, ...]:
    return tuple(sorted(poly.items(), key=repr))


def _constant(value: Fraction) -> Poly:
    return {ONE: value} if value else {}


def _as_constant(poly: Poly) -> Fraction | None:
    if not poly:
        return Fraction(0)
    if len(poly) == 1 and ONE in poly:
        return poly[ONE]
    return None


def _indices(thing: Any, out: set[str]) -> set[str]:
    """Collect every index name in an atom, monomial or frozen polynomial."""
    if isinstance(thing, str):
        if thing[:1] == "%":
            out.add(thing)
    elif isinstance(thing, tuple):
        for part in thing:
            _indices(part, out)
    return out


def _height(thing: Any) -> int:
    """Return the nesting depth of summation inside a thing."""
    if isinstance(thing, str):
        return int(thing[2:].split(".")[0]) if thing[:2] == "%~" else 0
    if isinstance(thing, tuple):
        return max((_height(part) for part in thing), default=0)
    return 0


class _Builder:
    def __init__(self, positive: frozenset[str]):
        self.positive = positive
        self._count = 0

    def fresh(self) -> str:
        self._count += 1
        return f"%@{self._count}"

    # -- polynomial arithmetic ---------------------------------------------

    def add(self, polys: Iterable[Poly]) -> Poly:
        out: Poly = {}
        for poly in polys:
            for mono, c in poly.items():
                total = out.get(mono, Fraction(0)) + c
                if total:
                    out[mono] = total
                else:
                    out.pop(mono, None)
        if len(out) > LIMIT:
            raise NoForm
        return out

    def scale(self, poly: Poly, c: Fraction) -> Poly:
        return {m: v * c for m, v in poly.items()} if c else {}

    def multiply(self, a: Poly, b: Poly) -> Poly:
        if len(a) * len(b) > LIMIT:
            raise NoForm
        return self.add(
            {m: c * u * v}
            for (p, u) in a.items()
            for (q, v) in b.items()
            for (m, c) in [self.times(p, q)]
        )

    def times(self, p: Mono, q: Mono) -> tuple[Mono, Fraction]:
        (bp, fp), (bq, fq) = p, q
        if not bp and not bq:
            return self.mono((), fp + fq)
        if bq:
            names = {name: self.fresh() for name, _ in bq}
            bq = tuple((names[n], d) for n, d in bq)
            fq = tuple((self.rename(atom, names), e) for atom, e in fq)
        if bp:
            names = {name: self.fresh() for name, _ in bp}
            bp = tuple((names[n], d) for n, d in bp)
            fp = tuple((self.rename(atom, names), e) for atom, e in fp)
        return self.mono(bp + bq, fp + fq)

    def mono(
        self, bound: tuple[tuple[str, str], ...], factors: Iterable[tuple[Atom, Fraction]]
    ) -> tuple[Mono, Fraction]:
        """Bring one product into canonical form; return it and a rational factor."""
        merged: dict[Atom, Fraction] = {}
        coefficient = Fraction(1)
        for atom, exponent in factors:
            merged[atom] = merged.get(atom, Fraction(0)) + exponent
        for atom in list(merged):
            exponent = merged[atom]
            if exponent == 0:
                del merged[atom]
            elif atom[0] == "prime":
                whole = exponent.numerator // exponent.denominator
                coefficient *= Fraction(atom[1]) ** whole
                merged[atom] = exponent - whole
                if not merged[atom]:
                    del merged[atom]
        if not bound:
            return ((), tuple(sorted(merged.items(), key=repr))), coefficient
        # A summation index no factor mentions only multiplies by its size.
        used = _indices(tuple(merged), set())
        extra = [d for n, d in bound if n not in used]
        bound = tuple((n, d) for n, d in bound if n in used)
        for dim in extra:
            atom = ("size", dim)
            merged[atom] = merged.get(atom, Fraction(0)) + 1
            if not merged[atom]:
                del merged[atom]
        if not bound:
            return ((), tuple(sorted(merged.items(), key=repr))), coefficient
        if len(bound) > 4:
            raise NoForm
        height = 1 + max(_height(atom) for atom in merged)
        best: Mono | None = None
        for order in itertools.permutations(bound):
            names = {n: f"%~{height}.{k}" for k, (n, _) in enumerate(order)}
            renamed = tuple(
                sorted(((self.rename(a, names), e) for a, e in merged.items()), key=repr)
            )
            candidate = (tuple((names[n], d) for n, d in order), renamed)
            if best is None or repr(candidate) < repr(best):
                best = candidate
        assert best is not None
        return best, coefficient

    def rename(self, thing: Any, names: Mapping[str, str]) -> Any:
        """Rename indices everywhere inside an atom and sort again."""
        if not _indices(thing, set()) & set(names):
            return thing
        return self._rename(thing, names)

    def _rename(self, atom: Atom, names: Mapping[str, str]) -> Atom:
        kind = atom[0]
        if kind == "in":
            return ("in", atom[1], tuple(names.get(i, i) for i in atom[2]))
        if kind == "ival":
            return ("ival", names.get(atom[1], atom[1]))
        if kind == "exp":
            ((mono, c),) = self.rename_poly({atom[1]: Fraction(1)}, names).items()
            if c != 1:
                raise NoForm
            return ("exp", mono)
        if kind == "poly":
            return ("poly", _freeze(self.rename_poly(dict(atom[1]), names)))
        if kind == "fn":
            return ("fn", atom[1], _freeze(self.rename_poly(dict(atom[2]), names)))
        if kind == "extreme":
            parts = [_freeze(self.rename_poly(dict(p), names)) for p in atom[2]]
            return ("extreme", atom[1], tuple(sorted(parts, key=repr)))
        if kind == "over":
            # the bound index is private to the atom and never among `names`
            return (*atom[:3], self._rename_over(atom[3], names))
        return atom

    def _rename_over(self, frozen: Any, names: Mapping[str, str]) -> Any:
        return _freeze(self.rename_poly(dict(frozen), names))

    def rename_poly(self, poly: Poly, names: Mapping[str, str]) -> Poly:
        parts = []
        for (bound, factors), c in poly.items():
            inner = {k: v for k, v in names.items() if k not in {n for n, _ in bound}}
            mono, extra = self.mono(bound, ((self.rename(a, inner), e) for a, e in factors))
            parts.append({mono: c * extra})
        return self.add(parts)

    def power(self, poly: Poly, exponent: Fraction) -> Poly:
        if exponent == 0:
            return _constant(Fraction(1))
        if exponent == 1:
            return poly
        constant = _as_constant(poly)
        if constant is not None:
            return self.number_power(constant, exponent)
        if len(poly) == 1:
            ((mono, c),) = poly.items()
            bound, factors = mono
            if not bound and (
                exponent.denominator == 1
                or (c > 0 and all(self.is_positive(atom) for atom, _ in factors))
            ):
                out = self.number_power(c, exponent)
                m, extra = self.mono((), ((a, e * exponent) for a, e in factors))
                return self.multiply(out, {m: extra})
        if exponent.denominator == 1 and 2 <= exponent <= 3 and len(poly) <= 4:
            out = poly
            for _ in range(int(exponent) - 1):
                out = self.multiply(out, poly)
            return out
        # An opaque base: pull out of it what can be pulled out soundly.
        common, rest = self.content(poly, exponent.denominator == 1)
        atom: Atom = ("poly", _freeze(rest))
        m, extra = self.mono((), ((atom, exponent),))
        out = {m: extra}
        return self.multiply(self.power(common, exponent), out)

    def content(self, poly: Poly, whole: bool) -> tuple[Poly, Poly]:
        """Split a sum into a common factor and the rest.

        The factor is positive (so fractional powers split too) unless the power
        is a whole number, when its sign may be taken out as well.
        """
        monos = list(poly)
        shared: dict[Atom, Fraction] = {}
        atoms = {a for _, fs in monos for a, _ in fs}
        for atom in atoms:
            if not self.is_positive(atom):
                continue
            own = _indices(atom, set())
            if any(own & {n for n, _ in bound} for bound, _ in monos):
                continue
            low = min(dict(fs).get(atom, Fraction(0)) for _, fs in monos)
            if low:
                shared[atom] = low
        mono, extra = self.mono((), shared.items())
        inverse, extra_inverse = self.mono((), ((a, -e) for a, e in shared.items()))
        rest = self.multiply(poly, {inverse: extra_inverse})
        lead = rest[min(rest, key=repr)]
        if not whole:
            lead = abs(lead)
        common = {mono: extra * lead}
        return common, self.scale(rest, 1 / lead)

    def number_power(self, c: Fraction, exponent: Fraction) -> Poly:
        if exponent.denominator == 1:
            if c == 0 and exponent < 0:
                raise NoForm
            return _constant(c**exponent.numerator)
        if c <= 0 or max(c.numerator, c.denominator) > 10**9:
            raise NoForm
        factors = [(("prime", p), e * exponent) for p, e in _primes(c.numerator)]
        factors += [(("prime", p), -e * exponent) for p, e in _primes(c.denominator)]
        mono, extra = self.mono((), factors)
        return {mono: extra}

    def is_positive(self, atom: Atom) -> bool:
        kind = atom[0]
        if kind in ("size", "exp", "prime", "pi", "ival"):
            return True
        if kind == "in":
            return atom[1] in self.positive
        if kind == "poly":
            return all(
                c > 0 and all(self.is_positive(a) for a, _ in factors)
                for (_, factors), c in atom[1]
            )
        return False

    def sum_over(self, poly: Poly, index: str, dim: str) -> Poly:
        parts = []
        for (bound, factors), c in poly.items():
            inside = [(a, e) for a, e in factors if index in _indices(a, set())]
            if bound:
                mono, extra = self.mono((*bound, (index, dim)), factors)
                parts.append({mono: c * extra})
                continue
            outside = [(a, e) for a, e in factors if index not in _indices(a, set())]
            inner, extra = self.mono(((index, dim),), inside)
            outer, extra2 = self.mono((), outside)
            product, extra3 = self.times(inner, outer)
            parts.append({product: c * extra * extra2 * extra3})
        return self.add(parts)

    def exp(self, poly: Poly) -> Poly:
        factors: list[tuple[Atom, Fraction]] = []
        for mono, c in poly.items():
            factors.append((("exp", mono), c))
        mono, extra = self.mono((), factors)
        return {mono: extra}

    def log(self, poly: Poly) -> Poly:
        """Return the logarithm, splitting positive factors off."""
        if len(poly) == 1:
            ((mono, c),) = poly.items()
            bound, factors = mono
            if not bound and c > 0 and factors:
                good = [(a, e) for a, e in factors if self.is_positive(a)]
                rest = [(a, e) for a, e in factors if not self.is_positive(a)]
                parts: list[Poly] = []
                for atom, e in good:
                    if atom[0] == "exp":
                        parts.append({atom[1]: e})
                    elif atom[0] == "poly":
                        parts.append(self.scale(self.fn("log", dict(atom[1])), e))
                    else:
                        parts.append(
                            self.scale(
                                self.fn("log", {((), ((atom, Fraction(1)),)): Fraction(1)}), e
                            )
                        )
                if c != 1:
                    parts.append(self.fn("log", _constant(c)))
                if rest:
                    parts.append(self.fn("log", {((), tuple(rest)): Fraction(1)}))
                return self.add(parts)
        if _as_constant(poly) == 1:
            return {}
        if not poly:
            raise NoForm
        common, inner = self.content(poly, False)
        if _as_constant(common) == 1:
            return self.fn("log", inner)
        return self.add([self.log(common), self.fn("log", inner)])

    def fn(self, name: str, poly: Poly) -> Poly:
        return {((), ((("fn", name, _freeze(poly)), Fraction(1)),)): Fraction(1)}

    # -- terms ---------------------------------------------------------------

    def build(self, t: Term, at: tuple[str, ...], env: Mapping[str, str]) -> Poly:
        method = getattr(self, "_" + t.op, None)
        if method is None:
            raise NoForm
        out: Poly = method(t, at, env)
        return out

    def args(self, t: Term, places: Any, at: tuple[str, ...], env: Mapping[str, str]) -> list[Poly]:
        out = []
        for arg, place in zip(t.args, places):
            where = at[len(at) - len(arg.dims) :] if place is None else tuple(at[k] for k in place)
            out.append(self.build(arg, where if arg.dims else (), env))
        return out

    def _number(self, t: Term, at: Any, env: Any) -> Poly:
        return _constant(t.value)

    def _symbol(self, t: Term, at: Any, env: Any) -> Poly:
        return {((), ((("in", t.value, at), Fraction(1)),)): Fraction(1)}

    def _size(self, t: Term, at: Any, env: Any) -> Poly:
        return {((), ((("size", t.value), Fraction(1)),)): Fraction(1)}

    def _pi(self, t: Term, at: Any, env: Any) -> Poly:
        return {((), ((("pi",), Fraction(1)),)): Fraction(1)}

    def _indexvalue(self, t: Term, at: Any, env: Mapping[str, str]) -> Poly:
        return {((), ((("ival", env[t.value]), Fraction(1)),)): Fraction(1)}

    def _add(self, t: Term, at: Any, env: Any) -> Poly:
        return self.add(self.args(t, t.value, at, env))

    def _neg(self, t: Term, at: Any, env: Any) -> Poly:
        return self.scale(self.build(t.args[0], at, env), Fraction(-1))

    def _same(self, t: Term, at: Any, env: Any) -> Poly:
        return self.build(t.args[0], at, env)

    def _times(self, t: Term, at: Any, env: Any) -> Poly:
        out = _constant(Fraction(1))
        for poly in self.args(t, t.value, at, env):
            out = self.multiply(out, poly)
        return out

    def _div(self, t: Term, at: Any, env: Any) -> Poly:
        a, b = self.args(t, t.value, at, env)
        return self.multiply(a, self.power(b, Fraction(-1)))

    def _pow(self, t: Term, at: Any, env: Any) -> Poly:
        a, b = self.args(t, t.value, at, env)
        exponent = _as_constant(b)
        if exponent is not None:
            return self.power(a, exponent)
        base = _as_constant(a)
        if len(a) == 1 and base is None:
            ((mono, c),) = a.items()
            if c == 1 and not mono[0] and all(self.is_positive(x) for x, _ in mono[1]):
                return self.exp(self.multiply(b, self.log(a)))
        if base is not None and base > 0:
            return self.exp(self.multiply(b, self.log(a)))
        raise NoForm

    def _fn(self, t: Term, at: Any, env: Any) -> Poly:
        x = self.build(t.args[0], at, env)
        name = t.value
        half = Fraction(1, 2)
        if name == "exp":
            return self.exp(x)
        if name == "log":
            return self.log(x)
        if name in ("log2", "log10"):
            base = self.fn("log", _constant(Fraction(int(name[3:]))))
            return self.multiply(self.log(x), self.power(base, Fraction(-1)))
        if name == "sqrt":
            return self.power(x, half)
        one = _constant(Fraction(1))
        if name in ("sigmoid", "silu", "logsigmoid", "softplus"):
            if name == "softplus":
                return self.log(self.add([one, self.exp(x)]))
            denominator = self.add([one, self.exp(self.scale(x, Fraction(-1)))])
            if name == "logsigmoid":
                return self.scale(self.log(denominator), Fraction(-1))
            sigma = self.power(denominator, Fraction(-1))
            return sigma if name == "sigmoid" else self.multiply(x, sigma)
        if name in ("gelu", "Phi"):
            root = self.power(_constant(Fraction(2)), -half)
            phi = self.scale(self.add([one, self.fn("erf", self.multiply(x, root))]), half)
            return phi if name == "Phi" else self.multiply(x, phi)
        if name == "relu":
            return self._largest("max", [x, {}])
        return self.fn(name, x)

    def _largest(self, kind: str, polys: list[Poly]) -> Poly:
        parts = tuple(sorted({_freeze(p) for p in polys}, key=repr))
        if len(parts) == 1:
            return polys[0]
        return {((), ((("extreme", kind, parts), Fraction(1)),)): Fraction(1)}

    def _extreme(self, t: Term, at: Any, env: Any) -> Poly:
        kind, places = t.value
        return self._largest(kind, self.args(t, places, at, env))

    def _matmul(self, t: Term, at: tuple[str, ...], env: Any) -> Poly:
        a, b = t.args
        j = self.fresh()
        left = self.build(a, (*at[: len(a.dims) - 1], j), env)
        right = self.build(b, (j, *at[len(a.dims) - 1 :]), env)
        return self.sum_over(self.multiply(left, right), j, b.dims[0])

    def _dot(self, t: Term, at: Any, env: Any) -> Poly:
        j = self.fresh()
        a, b = (self.build(x, (j,), env) for x in t.args)
        return self.sum_over(self.multiply(a, b), j, t.args[0].dims[0])

    def _outer(self, t: Term, at: tuple[str, ...], env: Any) -> Poly:
        return self.multiply(self.build(t.args[0], at[:1], env), self.build(t.args[1], at[1:], env))

    def _transpose(self, t: Term, at: tuple[str, ...], env: Any) -> Poly:
        return self.build(t.args[0], at[::-1], env)

    def _softmax(self, t: Term, at: tuple[str, ...], env: Any) -> Poly:
        return self._normalised(t, at, env)

    def _normalised(self, t: Term, at: tuple[str, ...], env: Any) -> Poly:
        axis = t.value
        top = self.exp(self.build(t.args[0], at, env))
        return self.multiply(top, self.power(self._total(t, at, axis, env), Fraction(-1)))

    def _total(self, t: Term, at: tuple[str, ...], axis: int, env: Any) -> Poly:
        j = self.fresh()
        where = (*at[:axis], j, *at[axis + 1 :])
        inner = self.exp(self.build(t.args[0], where, env))
        return self.sum_over(inner, j, t.dims[axis])

    def _log_softmax(self, t: Term, at: tuple[str, ...], env: Any) -> Poly:
        total = self.log(self._total(t, at, t.value, env))
        return self.add([self.build(t.args[0], at, env), self.scale(total, Fraction(-1))])

    def _reduce(self, t: Term, at: tuple[str, ...], env: Any) -> Poly:
        kind, axes = t.value
        (a,) = t.args
        rest = iter(at)
        names = {k: self.fresh() for k in axes}
        where = tuple(names[k] if k in names else next(rest) for k in range(len(a.dims)))
        body = self.build(a, where, env)
        if kind in ("max", "min"):
            return self._over(kind, body, [(names[k], a.dims[k]) for k in axes])
        if kind == "logsumexp":
            body = self.exp(body)
        if kind == "prod":
            raise NoForm
        if kind in ("var", "std"):
            mean = self._mean(body, names, a, axes)
            gap = self.add([body, self.scale(mean, Fraction(-1))])
            out = self._mean(self.multiply(gap, gap), names, a, axes)
            return out if kind == "var" else self.power(out, Fraction(1, 2))
        if kind == "rms":
            squares = self._mean(self.multiply(body, body), names, a, axes)
            return self.power(squares, Fraction(1, 2))
        if kind == "mean":
            return self._mean(body, names, a, axes)
        if kind not in ("sum", "logsumexp"):
            raise NoForm
        for k in axes:
            body = self.sum_over(body, names[k], a.dims[k])
        return self.log(body) if kind == "logsumexp" else body

    def _mean(self, body: Poly, names: Mapping[int, str], a: Term, axes: Any) -> Poly:
        for k in axes:
            body = self.sum_over(body, names[k], a.dims[k])
            body = self.multiply(body, {((), ((("size", a.dims[k]), Fraction(-1)),)): Fraction(1)})
        return body

    def _over(self, kind: str, body: Poly, bound: list[tuple[str, str]]) -> Poly:
        if len(bound) != 1:
            raise NoForm
        ((index, dim),) = bound
        frozen = _freeze(body)
        private = f"%~{_height(frozen) + 1}.0"
        atom = ("over", kind, dim, _freeze(self.rename_poly(body, {index: private})))
        return {((), ((atom, Fraction(1)),)): Fraction(1)}

    def _norm(self, t: Term, at: Any, env: Any) -> Poly:
        (a,) = t.args
        names = tuple(self.fresh() for _ in a.dims)
        body = self.build(a, names, env)
        if t.value in ("2", "F"):
            body = self.multiply(body, body)
        elif t.value == "1":
            body = self.fn("abs", body)
        else:
            raise NoForm
        for name, dim in zip(names, a.dims):
            body = self.sum_over(body, name, dim)
        return self.power(body, Fraction(1, 2)) if t.value != "1" else body

    def _big(self, t: Term, at: Any, env: Mapping[str, str]) -> Poly:
        kind, variable, dim = t.value
        if dim is None:
            raise NoForm
        index = self.fresh()
        body = self.build(t.args[0], at, {**env, variable: index})
        if kind in ("max", "min"):
            return self._over(kind, body, [(index, dim)])
        if kind not in ("sum", "mean"):
            raise NoForm
        out = self.sum_over(body, index, dim)
        if kind == "mean":
            out = self.multiply(out, {((), ((("size", dim), Fraction(-1)),)): Fraction(1)})
        return out

    def _pick(self, t: Term, at: tuple[str, ...], env: Mapping[str, str]) -> Poly:
        base, *picks = t.args
        rest = iter(at)
        chosen = {}
        for axis, pick in zip(t.value, picks):
            if pick.op == "indexvalue":
                chosen[axis] = env[pick.value]
            elif pick.op == "number":
                chosen[axis] = f"#{pick.value}"
            else:
                raise NoForm
        where = tuple(chosen[k] if k in chosen else next(rest) for k in range(len(base.dims)))
        return self.build(base, where, env)

    def _table(self, t: Term, at: tuple[str, ...], env: Mapping[str, str]) -> Poly:
        n = len(t.value)
        return self.build(t.args[0], at[n:], {**env, **dict(zip(t.value, at[:n]))})


def _primes(n: int) -> list[tuple[int, int]]:
    out = []
    p = 2
    while p * p <= n:
        e = 0
        while n % p == 0:
            n //= p
            e += 1
        if e:
            out.append((p, e))
        p += 1
        if p > 10_000:
            raise NoForm
    if n > 1:
        out.append((n, 1))
    return out
