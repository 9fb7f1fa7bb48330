// Features with few rows, one per vector lane: the draw of solve.h without a Gram matrix.
//
// With the n rows h' of H, P = Lambda + H' Omega H. Eliminating parameter j leaves Lambda + H' M H for those after it, where
// M <- M - g g' / d_j, g = M h_j, d_j = lambda_j + h_j' g, from M = Omega on; h_j is column j of H. So the unit lower
// triangle of P = L D L' is L_ij = <h_i, c_j> with c_j = g / d_j: n^2 K operations in place of n K^2 / 2 + K^3 / 6, and the
// same draw from the same normals.
#pragma once

#include <algorithm>
#include <limits>

#include "lanes.h"

namespace bayesfm::ISA {

constexpr int kFewRows = 8;

template <class T>
class FewRows : public Features<T> {
  using Features<T>::K_, Features<T>::noise_, Features<T>::precision_, Features<T>::prior_, Features<T>::old_, Features<T>::x_;

 public:
  FewRows(int K, int64_t stride)
      : Features<T>(K), ld_(static_cast<int>(stride)), records_(size(kFewRows) * W<T>),
        memory_(size(kFewRows) + K * (kFewRows + 2)), H_(memory_), c_(H_ + size(kFewRows)), mean_(c_ + K * kFewRows),
        inverse_(mean_ + K) {}

  // Whether n rows at most are few.
  static bool holds(int64_t n, int K) { return n <= kFewRows && n < K; }

  // The draw of `count` features, whose rows are rows(l), n of them at most.
  template <class RowsOf>
  void draw(const RowsOf& rows, int count, int64_t n) {
    if (n <= 1)
      draw_few<1>(rows, count);
    else if (n <= 2)
      draw_few<2>(rows, count);
    else if (n <= 4)
      draw_few<4>(rows, count);
    else
      draw_few<kFewRows>(rows, count);
  }

 private:
  // Numbers of a record: n rows, their weights, their weighted residuals, up to whole registers.
  int size(int n) const { return (n * (ld_ + 2) + W<T> - 1) / W<T> * W<T>; }

  // Rows beyond the last one have weight zero.
  template <int n, int w = W<T>, class Rows>
  void record(const Rows& rows, T* out) const {
    if (ld_ < w) {
      if constexpr (w * sizeof(T) > kPieceBytes) record<n, w / 2>(rows, out);
      return;
    }
    for (int p = 0; p < n; ++p) {
      const int32_t e = rows.first + p;
      const bool there = e < rows.last;
      for (int c = 0; c < ld_; c += w) store<T, w>(out + p * ld_ + c, there ? rows.template q<w>(e, c) : Vec<T, w>{});
      out[n * ld_ + p] = there ? rows.weight(e) : T(0);
      out[n * (ld_ + 1) + p] = there ? rows.weighted_r(e) : T(0);
    }
  }

  template <int n, class RowsOf>
  void draw_few(const RowsOf& rows, int count) {
    for (int l = 0; l < count; ++l) record<n>(rows(l), records_ + l * size(n));
    for (int start = 0; start < size(n); start += W<T>) {
      V<T> turned[W<T>];
#pragma GCC unroll 16
      for (int l = 0; l < W<T>; ++l) turned[l] = load<T>(records_ + std::min(l, count - 1) * size(n) + start);
      transpose<T>(turned);
#pragma GCC unroll 16
      for (int l = 0; l < W<T>; ++l) H_[start + l] = turned[l];
    }
    eliminate<n>(H_ + n * ld_, H_ + n * (ld_ + 1));
    substitute<n>();
  }

  V<T> h(int p, int i) const { return i ? H_[p * ld_ + i - 1] : splat<T>(T(1)); }

  // c_j, 1 / sqrt(d_j) and the mean in the coordinates of sqrt(D) L'.
  template <int n>
  void eliminate(const V<T>* weight, const V<T>* weighted_r) {
    const T rounding = 4 * std::numeric_limits<T>::epsilon();
    V<T> M[n][n], e[n];
    for (int p = 0; p < n; ++p) {  // old parameters put back: what the rows say without this feature
      V<T> own{};
      for (int i = 0; i < K_; ++i) own += h(p, i) * old_[i];
      e[p] = weighted_r[p] + weight[p] * own;
      for (int q = 0; q < n; ++q) M[p][q] = p == q ? weight[p] : V<T>{};
    }
    for (int j = 0; j < K_; ++j) {
      V<T> h_j[n], g[n], b = prior_[j], d = precision_[j], diagonal = precision_[j];
      for (int p = 0; p < n; ++p) h_j[p] = h(p, j);
      for (int p = 0; p < n; ++p) {
        g[p] = V<T>{};
        for (int q = 0; q < n; ++q) g[p] += M[std::max(p, q)][std::min(p, q)] * h_j[q];
        d += h_j[p] * g[p];
        diagonal += weight[p] * h_j[p] * h_j[p];
        b += h_j[p] * e[p];
      }
      V<T> floor = precision_[j];
      if constexpr (n > 1) {  // of one row, no pivot can be wrong
        const V<T> by_rounding = diagonal * rounding;
        floor = by_rounding > floor ? by_rounding : floor;
      }
      const V<T> inverse = inverse_sqrt(d > floor ? d : floor), left = precision_[j] * inverse * inverse;
      inverse_[j] = inverse;
      mean_[j] = b * inverse;
      for (int p = 0; p < n; ++p) {
        const V<T> c = g[p] * inverse * inverse;
        c_[j * n + p] = c;
        if constexpr (n == 1) {  // 1 - h c = lambda / d: nothing cancels
          e[p] = e[p] * left - c * prior_[j];
          M[p][p] *= left;
        } else {
          e[p] -= c * b;
          for (int q = 0; q <= p; ++q) M[p][q] -= c * g[q];
        }
      }
    }
  }

  template <int n>
  void substitute() {
    V<T> t[n];
    for (int p = 0; p < n; ++p) t[p] = V<T>{};
    for (int j = K_ - 1; j >= 0; --j) {
      V<T> x = (mean_[j] + noise_[j]) * inverse_[j];
      for (int p = 0; p < n; ++p) x -= c_[j * n + p] * t[p];
      for (int p = 0; p < n; ++p) t[p] += h(p, j) * x;
      x_[j] = x;
    }
  }

  const int ld_;
  const Aligned<T> records_;
  const Aligned<V<T>> memory_;
  V<T> *const H_, *const c_, *const mean_, *const inverse_;
};

}  // namespace bayesfm::ISA
