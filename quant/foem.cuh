// foem.cuh: FOEM (Zheng, Qin et al.: "First-Order Error Matters: Accurate Compensation for Quantized Large Language Models", 2025), as
// its authors publish it in ModelCloud/GPTQModel.
//
// GPTQ takes each column's best correction from the second-order term of the loss alone, as if the weights had no gradient. But while
// columns are made good for one another, the weights v that are still to be quantized drift away from the originals w0, at which alone
// the gradient is 0. FOEM takes it to be beta (v - w0) H, which cancels against H^-1 and leaves two small terms for a column i:
//     before it is rounded (but not if it is the first of its block of 128)     v_i -= beta (v_i - w0_i)
//     in its error                                                              e_i = (v_i - v^_i - beta (v_i - w0_i)) / U_ii
// v_i in the second being what the first has made of it. All else is GPTQ's (gptq.cuh, whose kernel has both terms), grids included:
// they are fitted on weights that are not pulled. Its paper's equation 19 read literally pulls all columns at every step, so that of an
// early correction 0.9^127 is left at the end of a block, hardly what the authors measured. In arXiv v1 the drift was multiplied by the
// inverse Hessian, with another beta (3e-4), and could diverge.
//
// So each column is held a little closer to where it began, and fits the calibration tokens a little less: the output error that is
// reported, being measured on those, may well be above GPTQ's. Judge it by perplexity.
//
// --alpha above 0 adds GPTAQ's term (gptaq.cuh), which then sees the pulled v_i in the block and v^_i + beta (v_i - w0_i) after it. The
// authors used 0.25 with beta 0.2, and found it no better.
//
// symbols: v a row of W as corrected so far, w0 the same before; the others as in gptq.cuh, whose objective and steps these are
// defaults: beta 0.1 (its paper's main tables), alpha 0, else GPTQ's. beta 0 is GPTQ, or with alpha GPTAQ.
// cost: GPTQ's, or with alpha GPTAQ's
//
// defines: foem_solve
#pragma once
#include "gptaq.cuh"

inline void foem_solve(Quantizer& q, Layer& layer, int g) { gptaq_solve_with(q, layer, g, q.opt.beta); }
