// Tensor-core instructions of sm_80 and later, each PTX instruction in a function of its name.
//
// A warp holds a matrix in fragments (PTX ISA, "Matrix Fragments for mma.m16n8k16"). With
// g = lane / 4 and t = lane % 4, a register being two neighbours, the lower column first:
//
//   A (16 × 16)  a0 row g, columns 2t 2t+1    a1 row g+8     a2 row g, columns 2t+8 2t+9    a3 both
//   B (16 × 8)   b0 rows 2t 2t+1, column g    b1 rows 2t+8 2t+9
//   C (16 × 8)   c0 c1 row g, columns 2t 2t+1    c2 c3 row g+8
//
// So the C fragments of two neighbouring products, rounded, are the A fragment of the next one:
// the softmax of Q Kᵀ meets V without leaving the registers.
//
// Without a GPU the tests put functions of the same names in place of these, which do what the
// PTX ISA says on the registers of 32 simulated lanes.
#pragma once
#include "common.cuh"

// The tensor cores' name of the storage type, found by pasting -DSCALAR to KIND_.
#define KIND___half 0
#define KIND___nv_bfloat16 1
#define PASTE(a, b) a##b
#define KIND(type) PASTE(KIND_, type)

#ifdef __CUDACC__
#if KIND(SCALAR)
#define TYPE "bf16"
#else
#define TYPE "f16"
#endif

__device__ inline unsigned shared_address(const void *p) {
  return (unsigned)__cvta_generic_to_shared(p);
}

// c += a b
__device__ inline void mma_m16n8k16(float *c, const unsigned *a, unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE
      ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 × 8 matrices; lane 8 i + r gives the address of row r of matrix i, 16 bytes long. Lane
// 4 r + t receives columns 2t and 2t+1 of row r of each, or with .trans rows of column r.
__device__ inline void ldmatrix_x4(unsigned *r, const scalar *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

__device__ inline void ldmatrix_x4_trans(unsigned *r, const scalar *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// Copies to shared memory that go on while the thread computes; zeros where not `inside`.
__device__ inline void cp_async_16(void *shared, const void *global, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(inside ? 16 : 0)
               : "memory");
}

__device__ inline void cp_async_4(void *shared, const void *global, bool inside) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(inside ? 4 : 0)
               : "memory");
}

__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Wait until at most N groups of this thread are under way; others' copies need a barrier too.
template <int N>
__device__ inline void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// 2ˣ to two units in the last place.
__device__ inline float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two floats rounded to storage, `low` in the lower half.
__device__ inline unsigned pack(float low, float high) {
  unsigned both;
  asm("cvt.rn." TYPE "x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}
#endif
