// Sum of rows by place without atomics, the gradient of an embedding and of indexing: positions
// sorted by place, one block per place, summed in the order of the positions.
#include "common.cuh"

// Sorted positions starts[s] ... starts[s + 1] - 1 belong to place s = blockIdx.x; `order` maps
// them to rows. Unrolled, so that eight rows of a frequent place are on their way at a time.
extern "C" __global__ void scatter_sum(const scalar *rows, const long long *order,
                                       const long long *starts, scalar *out, int width) {
  long long first = starts[blockIdx.x], last = starts[blockIdx.x + 1];
  for (int c = threadIdx.x * LANES; c < width; c += blockDim.x * LANES) {
    float sum[LANES] = {};
#pragma unroll 8
    for (long long k = first; k < last; ++k) {
      float v[LANES];
      load_pack(rows + order[k] * width + c, width - c, v);
      for (int j = 0; j < LANES; ++j)
        if (c + j < width) sum[j] += v[j];
    }
    store_pack(out + (long long)blockIdx.x * width + c, width - c, sum);
  }
}
