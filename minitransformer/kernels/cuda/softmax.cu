// Softmax of rows: a row is read once and kept in registers.
#include "rows.cuh"

#define LOG2E 1.4426950408889634f

extern "C" __global__ void __launch_bounds__(BLOCK)
softmax_forward(const scalar *x, scalar *P, int rows, int width) {
  __shared__ float slots[WARP];
  int row = first_row();
  if (row >= rows) return;
  Row v;
  load_row(x + (long long)row * width, width, v);
  float top = -INFINITY, sum = 0.0f;
  EACH(k, j, width) top = fmaxf(top, v[k][j]);
  top = team_max(top, slots);
  EACH(k, j, width) sum += v[k][j] = exp2f((v[k][j] - top) * LOG2E);
  sum = team_sum(sum, slots);
  EACH(k, j, width) v[k][j] /= sum;
  store_row(P + (long long)row * width, width, v);
}

// dx = P (dP - Σ dP P)
extern "C" __global__ void __launch_bounds__(BLOCK)
softmax_backward(const scalar *dP, const scalar *P, scalar *dx, int rows, int width) {
  __shared__ float slots[WARP];
  int row = first_row();
  if (row >= rows) return;
  Row d, p;
  load_row(dP + (long long)row * width, width, d);
  load_row(P + (long long)row * width, width, p);
  float dot = 0.0f;
  EACH(k, j, width) dot += d[k][j] * p[k][j];
  dot = team_sum(dot, slots);
  EACH(k, j, width) d[k][j] = p[k][j] * (d[k][j] - dot);
  store_row(dx + (long long)row * width, width, d);
}
