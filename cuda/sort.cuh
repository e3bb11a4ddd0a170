// sort.cuh: sorting floats on the device; on the GPU it is Thrust's radix sort, which comes with the CUDA Toolkit.
//
// defines: sort_ascending
#pragma once
#include "device.cuh"
#include <new>
#ifdef __CUDACC__
#include <thrust/execution_policy.h>
#include <thrust/sort.h>
#endif

// x [n], device memory, in place. There must be no NaN among them: it has no place in the order.
inline void sort_ascending(float* x, size_t n) {
#ifdef __CUDACC__
    try {
        thrust::sort(thrust::device, x, x + n);
    } catch (const std::bad_alloc&) {  // Thrust's own room, and no host memory
        fail("out of device memory: sorting needs %.3f GB more. HINT: fewer or shorter calibration samples (-n, -l)", n * sizeof(float) / 1e9);
    }
#else
    std::sort(x, x + n);
#endif
}
