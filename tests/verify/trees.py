"""Formulas written as Python expressions, for tests that must not depend on the parser."""
import ast
from fractions import Fraction
from minitransformer.verify.expression import Expr, name, number, call

def tree(text):
    node = ast.parse(text.strip(), mode="eval").body
    return _t(node)

def _t(n):
    span=(n.col_offset,n.end_col_offset)
    def E(op,args=(),value=None): return Expr(op,tuple(args),value,span)
    if isinstance(n,ast.BinOp):
        l,r=_t(n.left),_t(n.right)
        return {ast.Add:lambda:E("add",[l,r]),ast.Sub:lambda:E("add",[l,E("neg",[r])]),ast.Mult:lambda:E("mul",[l,r]),
          ast.MatMult:lambda:E("mul",[l,r]),ast.Div:lambda:E("div",[l,r]),ast.Pow:lambda:E("pow",[l,r]),
          ast.BitXor:lambda:E("hadamard",[l,r])}[type(n.op)]()
    if isinstance(n,ast.UnaryOp): return E("neg",[_t(n.operand)])
    if isinstance(n,ast.Constant): return E("number",(),Fraction(str(n.value)))
    if isinstance(n,ast.Name): return E("name",(),n.id)
    if isinstance(n,ast.Attribute) and n.attr=="T": return E("transpose",[_t(n.value)])
    if isinstance(n,ast.Subscript):
        idx=n.slice.elts if isinstance(n.slice,ast.Tuple) else [n.slice]
        return E("index",[_t(n.value),*map(_t,idx)])
    if isinstance(n,ast.Call):
        f=n.func.id; a=n.args
        if f in("sum_","prod_","max_","min_","mean_"):  # sum_(i, body[, lo, hi])
            return E("big",[_t(x) for x in a[1:]],(f[:-1],a[0].id))
        if f=="E": return E("expect",[_t(a[0])])
        if f=="Var": return E("var",[_t(a[0])])
        if f in("sqrt","abs"): return E(f,[_t(x) for x in a])
        if f=="norm": return E("norm",[_t(a[0])],"2")
        if f=="concat": return E("concat",[_t(x) for x in a])
        return E("call",[_t(x) for x in a],f)
    if isinstance(n,ast.Compare):
        return Expr("relation",(_t(n.left),_t(n.comparators[0])),"=",span)
    raise ValueError(ast.dump(n))
