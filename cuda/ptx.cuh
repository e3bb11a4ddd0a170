// ptx.cuh: PTX instructions that CUDA C++ has no functions for: matrix fragments and their products on the tensor cores,
// asynchronous copies to shared memory, and two conversions. sm_80 and later. (PTX ISA: ldmatrix, mma, cp.async, ex2, cvt.)
//
// What ldmatrix and mma do is done by the 32 threads of a warp together: all must call. A shared address is a byte's place in
// shared memory; here they are multiples of 16.
//
// defines: shared_address, load_matrices, load_matrices_transposed, multiply_add, copy_chunk, wait_for_copies, exp2_fast, bf16_pair
#ifndef PTX_CUH  // the emulated GPU of the tests has these functions in plain C++, test/emulate/ptx.h
#define PTX_CUH

__device__ inline uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

// Four 8 x 8 matrices of bf16. Lane 8 m + i gives the address of row i of matrix m; r[m] becomes two neighbours of matrix m, in
// lane 4 i + j those at (i, 2j) and (i, 2j + 1). Transposed: those at (2j, i) and (2j + 1, i).
__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address));
}
__device__ inline void load_matrices_transposed(uint32_t (&r)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address));
}
// c[16, 8] += a[16, 16] b[16, 8], each in fragments. Of c, lane 4 g + t holds row g, columns 2t and 2t + 1, and the same of row
// g + 8; of a, registers 0 to 3 hold two neighbours at (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8); of b, b0 and b1 hold the
// rows 2t and 2t + 1, and 2t + 8 and 2t + 9, of column g.
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Starts copying 16 bytes of global memory to shared memory.
__device__ inline void copy_chunk(uint32_t address, const void* src) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(src) : "memory");
}
// Waits for the copies that any thread of the block has started.
__device__ inline void wait_for_copies() {
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
}

// 2^x to 2 ulp; denormals are 0.
__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// Rounds both to bf16.
__device__ inline uint32_t bf16_pair(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

#endif
