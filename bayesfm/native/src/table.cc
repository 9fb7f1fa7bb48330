// The features of a relation block, one after the other, from sufficient statistics per block row (Rendle, PVLDB 2013).
//
// When theta_j moves by delta, the summary of a row with value x and u = Q - x v_j moves by M delta, M = x [[1, u'], [0, I]].
// The row tells of that movement G and g (at what has moved already), hence of delta M' G M and M' g.
#include "table.h"

#include <algorithm>
#include <vector>

#include "solve.h"

namespace bayesfm::ISA {

template <class T>
void update_table(const Table<T>& f) {
  const int K = f.K, triangle = K * (K + 1) / 2;
  const int64_t m = f.m, p = f.p;
  std::vector<T> A(triangle), rhs(K), x(K), old(K), precision(K), mean(K), noise(K), u(K), top(K), g(K);
  std::vector<T> Q(m * K), moved(m * K, T(0));  // rows side by side; Q[0] of a row is 1, so that u_0 = 1
  for (int64_t b = 0; b < m; ++b) {
    Q[b * K] = T(1);
    for (int k = 1; k < K; ++k) Q[b * K + k] = f.Q[(k - 1) * m + b];
  }
  for (int64_t j = 0; j < p; ++j) {
    for (int k = 0; k < K; ++k) {
      old[k] = f.theta[k * p + j];
      precision[k] = f.prior.precision[k * f.prior.num_groups + f.prior.group[j]];
      mean[k] = f.prior.mean[k * f.prior.num_groups + f.prior.group[j]];
      noise[k] = f.noise[k * p + j];
    }
    std::fill(A.begin(), A.end(), T(0));
    std::fill(rhs.begin(), rhs.end(), T(0));
    for (int32_t e = f.ptr[j]; e < f.ptr[j + 1]; ++e) {
      const T value = f.value[e];
      const T *G = f.information + static_cast<int64_t>(f.row[e]) * (triangle + K), *q = &Q[int64_t(f.row[e]) * K];
      const T* s = &moved[int64_t(f.row[e]) * K];
      for (int k = 0; k < K; ++k) g[k] = G[triangle + k];
      for (int i = 0; i < K; ++i) {
        T sum = T(0);
        for (int k = 0; k < i; ++k) {
          sum += G[at(i, k)] * s[k];
          g[k] -= G[at(i, k)] * s[i];
        }
        g[i] -= sum + G[at(i, i)] * s[i];
      }
      u[0] = T(1);
      for (int k = 1; k < K; ++k) u[k] = q[k] + s[k] - value * old[k];
      const T W = G[0], squared = value * value;
      A[0] += squared * W;
      rhs[0] += value * g[0];
      for (int i = 1; i < K; ++i) top[i] = W * u[i] + G[at(i, 0)];
      for (int i = 1; i < K; ++i) {
        A[at(i, 0)] += squared * top[i];
        for (int k = 1; k <= i; ++k) A[at(i, k)] += squared * (u[k] * top[i] + G[at(k, 0)] * u[i] + G[at(i, k)]);
        rhs[i] += value * (u[i] * g[0] + g[i]);
      }
    }
    for (int i = 0; i < K; ++i) {
      T sum = rhs[i] + precision[i] * mean[i];
      for (int k = 0; k < K; ++k) sum += A[i >= k ? at(i, k) : at(k, i)] * old[k];
      x[i] = sum;
    }
    rhs = x;
    for (int i = 0; i < K; ++i) A[at(i, i)] += precision[i];
    solve<T, T>(K, A.data(), rhs.data(), noise.data(), precision.data(), x.data());
    for (int k = 0; k < K; ++k) f.theta[k * p + j] = x[k];
    for (int32_t e = f.ptr[j]; e < f.ptr[j + 1]; ++e) {
      const T value = f.value[e];
      const T* q = &Q[int64_t(f.row[e]) * K];
      T* s = &moved[int64_t(f.row[e]) * K];
      T dE = value * (x[0] - old[0]);
      for (int k = 1; k < K; ++k) {
        const T dQ = value * (x[k] - old[k]);
        dE += (q[k] + s[k] - value * old[k]) * dQ;
        s[k] += dQ;
      }
      s[0] += dE;
    }
  }
  for (int64_t b = 0; b < m; ++b)
    for (int k = 0; k < K; ++k) f.moved[k * m + b] = moved[b * K + k];
}

template void update_table<float>(const Table<float>&);
template void update_table<double>(const Table<double>&);

}  // namespace bayesfm::ISA
