// methods.cuh: the methods that there are. A new one is a file beside this one, a line here, and its name at each flag that it takes
// (options.h).
//
// defines: METHODS
#pragma once
#include "awq.cuh"
#include "billm.cuh"
#include "foem.cuh"
#include "gptaq.cuh"
#include "gptq.cuh"
#include "rptq.cuh"
#include "rtn.cuh"
#include "smoothquant.cuh"

static const Method METHODS[] = {
    // name, about, order, default bits of weights and activations, group size, collect, solve a group, solve a layer, device bytes,
    // collect of a pair, whether a group size must divide, collect of q, k and v
    {"fp16", "full precision: nothing is quantized", Order::NONE, 16, 16, -1, nullptr, nullptr, nullptr, nullptr},
    {"rtn", "round to nearest (quant/rtn.cuh)", Order::WEIGHTS, 4, 16, -1, nullptr, rtn_solve, nullptr, two_copies_bytes},
    {"gptq", "GPTQ, Frantar et al. 2022 (quant/gptq.cuh)", Order::SEQUENTIAL, 4, 16, 128, hessian_collect, gptq_solve, nullptr,
     gptq_device_bytes},
    {"gptaq", "GPTAQ, Li et al. 2025: GPTQ towards the full-precision model's outputs (quant/gptaq.cuh)", Order::PAIRED, 4, 16, 128,
     hessian_collect, gptaq_solve, nullptr, gptaq_device_bytes, pair_collect},
    {"foem", "FOEM, Zheng et al. 2025: GPTQ that keeps weights from drifting (quant/foem.cuh)", Order::SEQUENTIAL, 4, 16, 128,
     hessian_collect, foem_solve, nullptr, gptaq_device_bytes, pair_collect},
    {"awq", "AWQ, Lin et al. 2023 (quant/awq.cuh); on c4 without -n and -l its own calibration rule, 512 tokens a sample",
     Order::FULL_PRECISION, 4, 16, 128, awq_collect, nullptr, awq_solve, awq_device_bytes, nullptr, true},
    {"billm", "BiLLM, Huang et al. 2024: about one bit, blocks of 128 (quant/billm.cuh)", Order::LAYERWISE, 1, 16, 128,
     hessian_collect, billm_solve, nullptr, billm_device_bytes},
    {"smoothquant", "SmoothQuant, Xiao et al. 2022: one grid a row (quant/smoothquant.cuh)", Order::FULL_PRECISION, 8, 8, -1,
     smoothquant_collect, nullptr, smoothquant_solve, two_copies_bytes},
    {"rptq", "RPTQ, Yuan et al. 2023: clusters of channels with a grid each, calibrated (quant/rptq.cuh)", Order::LAYERWISE, 4, 8, -1,
     rptq_collect, rptq_solve, nullptr, rptq_device_bytes, nullptr, false, rptq_collect_heads},
};
