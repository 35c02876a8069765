// Gradient of an embedding without atomics: positions sorted by id, one block per distinct id,
// summed in the order of the positions.
#include "common.cuh"

// Segment s holds the sorted places starts[s] ... starts[s + 1] - 1; `order` maps them to rows
// of dout, ids[s] is the row of the table.
extern "C" __global__ void embedding_backward(const scalar *dout, const long long *order,
                                              const long long *starts, const long long *ids,
                                              scalar *dweight, int width) {
  long long first = starts[blockIdx.x], last = starts[blockIdx.x + 1];
  for (int c = threadIdx.x; c < width; c += blockDim.x) {
    float sum = 0.0f;
    for (long long k = first; k < last; ++k) sum += load(dout, order[k] * width + c);
    store(dweight, ids[blockIdx.x] * width + c, sum);
  }
}
