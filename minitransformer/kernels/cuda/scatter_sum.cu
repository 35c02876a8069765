// Sum of rows by place without atomics, the gradient of an embedding and of indexing: positions
// sorted by place, one block per place, summed in the order of the positions.
#include "common.cuh"

// Sorted positions starts[s] ... starts[s + 1] - 1 belong to place s = blockIdx.x; `order` maps
// them to rows.
extern "C" __global__ void scatter_sum(const scalar *rows, const long long *order,
                                       const long long *starts, scalar *out, int width) {
  long long first = starts[blockIdx.x], last = starts[blockIdx.x + 1];
  for (int c = threadIdx.x; c < width; c += blockDim.x) {
    float sum = 0.0f;
    for (long long k = first; k < last; ++k) sum += load(rows, order[k] * width + c);
    store(out, (long long)blockIdx.x * width + c, sum);
  }
}
