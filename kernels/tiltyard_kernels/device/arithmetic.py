"""Functions of single numbers that the epilogues' generated source calls."""

import triton
import triton.language as tl

_ASSEMBLY = tl.constexpr(not triton.knobs.runtime.interpret)


@triton.jit
def sigmoid(x):
    """1 / (1 + e⁻ˣ). In float32 on a GPU four instructions, two of them of the special-function unit, and wrong by some
    2⁻²³ at most; of small results that is more than their last place, 2 units of it for x near 0 and some 60 for −80,
    since −x · log₂ e is rounded before it is an exponent. What is below 10⁻³⁸ is 0. tl.sigmoid takes eighteen, to keep
    such numbers and to divide, and that was half of what the programs around SwiGLU took."""
    if _ASSEMBLY and x.dtype == tl.float32:
        return tl.inline_asm_elementwise(
            """{
            .reg .f32 value;
            mul.ftz.f32 value, $1, 0fBFB8AA3B;
            ex2.approx.ftz.f32 value, value;
            add.ftz.f32 value, value, 0f3F800000;
            rcp.approx.ftz.f32 $0, value;
            }""",
            "=f,f",
            [x],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )
    else:  # the compiler must see one branch only
        return tl.sigmoid(x)


@triton.jit
def beside(acc, x):
    """x, in the layout of acc. Without this the compiler works out twice whatever does not depend on the accumulator
    but meets it later: once as x was loaded, once as the accumulator lies."""
    if _ASSEMBLY and x.dtype == tl.float32:
        return tl.inline_asm_elementwise("mov.b32 $0, $2;", "=f,f,f", [acc, x], dtype=tl.float32, is_pure=True, pack=1)
    else:  # the compiler must see one branch only
        return x
