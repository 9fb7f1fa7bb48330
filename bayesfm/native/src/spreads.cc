// Tables of what uncertain features bring into a row, and the variance of eta from them; W features or rows stand side by side.
#include <algorithm>

#include "beliefs.h"
#include "gram.h"
#include "solve.h"
#include "vector.h"

namespace bayesfm::ISA {
namespace {

// W rows become lanes: number c of row l is lane l of out[c].
template <class T, class RowAt>
void to_lanes(const RowAt& row_at, int64_t size, V<T>* out) {
  for (int64_t c = 0; c < size; c += W<T>) {
    V<T> turned[W<T>];
#pragma GCC unroll 16
    for (int l = 0; l < W<T>; ++l) turned[l] = row_at(l, c);
    transpose<T>(turned);
#pragma GCC unroll 16
    for (int l = 0; l < W<T>; ++l) out[c + l] = turned[l];
  }
}

}  // namespace

template <class T>
void fill_spreads(const Spreads<T>& f, int64_t lo, int64_t hi) {
  const SpreadRow at_row(f.k);
  const int K = f.k + 1;
  const Aligned<V<T>> u(f.stride);
  std::fill(u + 0, u + f.stride, V<T>{});
  for (int64_t first = lo; first < hi; first += W<T>) {
    const int64_t last = std::min(hi, f.m);  // beyond, zeros
    const auto cov = [&](int i, int j) { return load_some<T>(f.cov + (int64_t(i) * K + j) * f.m, first, last); };
    V<T> a = cov(0, 0), t{};
    for (int i = 0; i < f.k; ++i) {
      const V<T> m_i = load_some<T>(f.mean + int64_t(i + 1) * f.m, first, last), s = cov(i + 1, 0);
      u[at_row.m() + i] = m_i;
      u[at_row.s() + i] = s;
      a -= T(2) * s * m_i;
    }
    for (int i = 0; i < f.k; ++i) u[at_row.A() + i] = u[at_row.s() + i];
    for (int i = 0; i < f.k; ++i) {
      const V<T> m_i = u[at_row.m() + i];
      for (int j = 0; j <= i; ++j) {
        const V<T> c = cov(i + 1, j + 1), m_j = u[at_row.m() + j];
        const T times = i == j ? T(1) : T(2);
        u[at(i, j)] = c;
        u[at_row.A() + i] -= c * m_j;
        if (i != j) u[at_row.A() + j] -= c * m_i;
        a += times * c * m_i * m_j;
        t += times * c * c;
      }
    }
    u[at_row.a()] = a;
    u[at_row.t()] = t;
    for (int64_t c = 0; c < f.stride; c += W<T>) {
      V<T> turned[W<T>];
      for (int l = 0; l < W<T>; ++l) turned[l] = u[c + l];
      transpose<T>(turned);
      for (int l = 0; l < W<T> && first + l < hi; ++l) store<T>(f.out + (first + l) * f.stride + c, turned[l]);
    }
  }
}

template <class T>
void row_variances(const Variances<T>& f, int64_t lo, int64_t hi) {
  const SpreadRow at_row(f.k);
  const Aligned<V<T>> u(f.stride);
  const int64_t used = (at_row.size() + W<T> - 1) / W<T> * W<T>;
  for (int64_t first = lo; first < hi; first += W<T>) {
    const int64_t last = hi - 1;  // lanes to spare repeat the last row
    to_lanes<T>(
        [&](int l, int64_t c) {
          const int64_t n = std::min(first + l, last);
          V<T> sum = load<T>(f.spread[0] + f.code[0][n] * f.stride + c);
          for (int i = 1; i < f.num_units; ++i) sum += load<T>(f.spread[i] + f.code[i][n] * f.stride + c);
          return sum;
        },
        used, u);
    V<T> total = u[at_row.a()] - T(0.5) * u[at_row.t()];
    const V<T>* q = u + at_row.m();
    for (int i = 0; i < f.k; ++i) {
      V<T> product{}, squares{};
      for (int j = 0; j < i; ++j) {
        const V<T> c = u[at(i, j)];
        product += c * q[j];
        squares += c * c;
      }
      const V<T> c = u[at(i, i)];
      total += q[i] * (T(2) * (u[at_row.A() + i] + product) + c * q[i]) + squares + T(0.5) * c * c;
    }
    total = total < V<T>{} ? V<T>{} : total;  // a sum of squares, which rounding can take below zero
    store_some<T>(f.out, first, hi, total);
  }
}

template void fill_spreads<float>(const Spreads<float>&, int64_t, int64_t);
template void fill_spreads<double>(const Spreads<double>&, int64_t, int64_t);
template void row_variances<float>(const Variances<float>&, int64_t, int64_t);
template void row_variances<double>(const Variances<double>&, int64_t, int64_t);

}  // namespace bayesfm::ISA
