// Layer normalisation: a row is read once and kept in registers; everything in float32, the
// parameters too, whatever the rows are stored in.
#include "rows.cuh"

// y = (x - mean) rstd gain + shift; gain and shift may be null.
extern "C" __global__ void __launch_bounds__(BLOCK)
layer_norm_forward(const scalar *x, const float *gain, const float *shift, scalar *y,
                   float *mean, float *rstd, int rows, int width, float eps) {
  __shared__ float slots[WARP];
  int row = first_row();
  if (row >= rows) return;
  Row v;
  load_row(x + (long long)row * width, width, v);
  float sum = 0.0f, squares = 0.0f;
  EACH(k, j, width) sum += v[k][j];
  float mu = team_sum(sum, slots) / width;
  EACH(k, j, width) squares += (v[k][j] - mu) * (v[k][j] - mu);
  float r = rsqrtf(team_sum(squares, slots) / width + eps);
#pragma unroll
  for (int k = 0; k < PACKS; ++k) {  // gain and shift are in the cache; registers are for rows
    float g[LANES], b[LANES];
    int c = column(k, 0);
    if (gain) load_pack(gain + c, width - c, g);
    if (shift) load_pack(shift + c, width - c, b);
    for (int j = 0; j < LANES; ++j)
      v[k][j] = (v[k][j] - mu) * r * (gain ? g[j] : 1.0f) + (shift ? b[j] : 0.0f);
    store_pack(y + (long long)row * width + c, width - c, v[k]);
  }
  if (threadIdx.x % TEAM == 0) {
    mean[row] = mu;
    rstd[row] = r;
  }
}

// dx = rstd (dx_hat - mean(dx_hat) - x_hat mean(dx_hat x_hat)), with dx_hat = dy gain; and, from
// the same reading, this block's share of dgain = Σ dy x_hat and dshift = Σ dy: line blockIdx.x
// of `parts` and, gridDim.x lines on, of its second half.
extern "C" __global__ void __launch_bounds__(BLOCK)
layer_norm_backward(const scalar *dy, const scalar *x, const float *gain, const float *mean,
                    const float *rstd, scalar *dx, float *parts, int rows, int width) {
  __shared__ float slots[WARP];
  Row dgain = {}, dshift = {};
  for (int row = first_row(); row < rows; row += gridDim.x * teams()) {
    Row d, v, g;
    load_row(dy + (long long)row * width, width, d);
    load_row(x + (long long)row * width, width, v);
    if (gain) load_row(gain, width, g);
    float mu = mean[row], r = rstd[row], sum = 0.0f, projection = 0.0f;
    EACH(k, j, width) {
      v[k][j] = (v[k][j] - mu) * r;  // x_hat
      dgain[k][j] += d[k][j] * v[k][j];
      dshift[k][j] += d[k][j];
      d[k][j] *= gain ? g[k][j] : 1.0f;  // dx_hat
      sum += d[k][j];
      projection += d[k][j] * v[k][j];
    }
    sum = team_sum(sum, slots) / width;
    projection = team_sum(projection, slots) / width;
    EACH(k, j, width) d[k][j] = r * (d[k][j] - sum - v[k][j] * projection);
    store_row(dx + (long long)row * width, width, d);
  }
  if (TEAM == WARP) {  // the block's rows were shared by its warps, which add up in turn
    __shared__ float totals[2][TEAM == WARP ? WARP * PACKS * LANES : 1];
    for (int turn = 0; turn < teams(); ++turn) {
      if (team() == turn) EACH(k, j, width) {
        int c = column(k, j);
        totals[0][c] = dgain[k][j] += turn ? totals[0][c] : 0.0f;
        totals[1][c] = dshift[k][j] += turn ? totals[1][c] : 0.0f;
      }
      __syncthreads();
    }
  }
  if (team() == teams() - 1) {
    store_row(parts + (long long)blockIdx.x * width, width, dgain);
    store_row(parts + (long long)(gridDim.x + blockIdx.x) * width, width, dshift);
  }
}

// sums[half] = Σ parts[half], over `lines` lines: 32 columns a block, its warps take turns.
extern "C" __global__ void layer_norm_backward_sums(const float *parts, float *sums, int lines,
                                                    int width) {
  __shared__ float slots[WARP][WARP];
  int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
  int c = blockIdx.x * WARP + lane;
  const float *half = parts + (long long)blockIdx.y * lines * width;
  float sum = 0.0f;
  if (c < width)
    for (int line = warp; line < lines; line += warps) sum += half[(long long)line * width + c];
  slots[warp][lane] = sum;
  __syncthreads();
  if (warp == 0 && c < width) {
    for (int k = 1; k < warps; ++k) sum += slots[k][lane];
    sums[(long long)blockIdx.y * width + c] = sum;
  }
}
