// sort.cuh: sorting floats on the device; on the GPU it is Thrust's radix sort, which comes with the CUDA Toolkit.
//
// defines: sort_ascending
#pragma once
#include "device.cuh"
#ifdef __CUDACC__
#include <thrust/execution_policy.h>
#include <thrust/sort.h>
#endif

// x [n], device memory, in place. There must be no NaN among them: it has no place in the order.
inline void sort_ascending(float* x, size_t n) {
#ifdef __CUDACC__
    thrust::sort(thrust::device, x, x + n);
#else
    std::sort(x, x + n);
#endif
}
