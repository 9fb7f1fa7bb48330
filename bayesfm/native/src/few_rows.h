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

  // Numbers that eliminate_v keeps of a feature with n rows at most.
  static int64_t kept(int64_t n, int k) {
    int64_t numbers = 0;
    with_bound(n, [&]<int bound>() { numbers = (2 + bound) * k; });
    return numbers;
  }

  // The draw of `count` features, whose rows are rows(l), n of them at most.
  template <class RowsOf>
  void draw(const RowsOf& rows, int count, int64_t most) {
    with_bound(most, [&]<int n>() {
      read<n>(rows, count);
      V<T> M[n][n], e[n], t[n];
      begin<n>(M, e);
      for (int j = 0; j < K_; ++j) eliminate<n>(j, M, e);
      for (int p = 0; p < n; ++p) t[p] = V<T>{};
      for (int j = K_ - 1; j >= 0; --j) substitute<n>(j, t);
    });
  }

  // All factors but v_f eliminated: the corner (field.h), and what is kept of the features in rows of `side` numbers.
  template <class RowsOf>
  void eliminate_v(const RowsOf& rows, int count, int64_t most, int f, V<T>* corner, T* systems, int side) {
    with_bound(most, [&]<int n>() {
      read<n>(rows, count);
      V<T> M[n][n], e[n];
      begin<n>(M, e);
      for (int i = 0; i < K_ - 2; ++i) eliminate<n>(other(i, f), M, e);
      const V<T>* const weight = H_ + n * ld_;
      for (int i = 0; i < kCorner; ++i) corner[i] = V<T>{};
      V<T> all_ff{}, all_ww{};
      for (int p = 0; p < n; ++p) {
        const V<T> h_p = K_ > 1 ? h(p, f + 1) : V<T>{};
        V<T> of_f{}, of_w{};
        for (int q = 0; q < n; ++q) {
          const V<T> m = M[std::max(p, q)][std::min(p, q)];
          of_w += m;
          if (K_ > 1) of_f += m * h(q, f + 1);
        }
        corner[0] += h_p * of_f;
        corner[1] += of_f;
        corner[2] += of_w;
        corner[3] += h_p * e[p];
        corner[4] += e[p];
        all_ff += weight[p] * h_p * h_p;
        all_ww += weight[p];
      }
      corner[0] = no_less(corner[0], all_ff);
      corner[2] = no_less(corner[2], all_ww);
      each_kept<n>(f, [&](int i, V<T>& x) { store<T>(systems + i * side, x); });
    });
  }

  // The other parameters, w and v_f being known; move(l, i, by): the residual of row i of feature l falls by that.
  template <class RowsOf, class Move>
  void substitute_v(const RowsOf& rows, int count, int64_t most, int f, V<T> w, V<T> v_f, const T* systems, int side,
                    const Move& move) {
    with_bound(most, [&]<int n>() {
      each_kept<n>(f, [&](int i, V<T>& x) { x = load<T>(systems + i * side); });
      turn<n>([&](int l, T* out) { record_factors<n>(rows(l), out); }, count, n * ld_);
      V<T> t[n];
      x_[0] = w;
      for (int p = 0; p < n; ++p) t[p] = w;
      if (K_ > 1) {
        x_[f + 1] = v_f;
        for (int p = 0; p < n; ++p) t[p] += h(p, f + 1) * v_f;
      }
      for (int i = K_ - 3; i >= 0; --i) substitute<n>(other(i, f), t);
      for (int p = 0; p < n; ++p) {
        for (int i = 0; i < K_; ++i) t[p] -= h(p, i) * old_[i];
        for (int l = 0; l < count; ++l)
          if (rows(l).first + p < rows(l).last) move(l, p, t[p][l]);
      }
    });
  }

 private:
  // Numbers of a record: n rows, their weights, their weighted residuals, up to whole registers.
  int size(int n) const { return (n * (ld_ + 2) + W<T> - 1) / W<T> * W<T>; }

  // f for 1, 2, 4 or 8 rows at most.
  template <class F>
  static void with_bound(int64_t most, const F& f) {
    if (most <= 1)
      f.template operator()<1>();
    else if (most <= 2)
      f.template operator()<2>();
    else if (most <= 4)
      f.template operator()<4>();
    else
      f.template operator()<kFewRows>();
  }

  // Factors of n rows; of rows beyond the last one, zeros.
  template <int n, int w = W<T>, class Rows>
  void record_factors(const Rows& rows, T* out) const {
    if (ld_ < w) {
      if constexpr (w * sizeof(T) > kPieceBytes) record_factors<n, w / 2>(rows, out);
      return;
    }
    for (int p = 0; p < n; ++p) {
      const int32_t e = rows.first + p;
      for (int c = 0; c < ld_; c += w)
        store<T, w>(out + p * ld_ + c, e < rows.last ? rows.template q<w>(e, c) : Vec<T, w>{});
    }
  }

  // And weights, zeros beyond the last row, and weighted residuals.
  template <int n, class Rows>
  void record(const Rows& rows, T* out) const {
    record_factors<n>(rows, out);
    for (int p = 0; p < n; ++p) {
      const int32_t e = rows.first + p;
      out[n * ld_ + p] = e < rows.last ? rows.weight(e) : T(0);
      out[n * (ld_ + 1) + p] = e < rows.last ? rows.weighted_r(e) : T(0);
    }
  }

  // H_ from records of `numbers` numbers side by side.
  template <int n, class Fill>
  void turn(const Fill& fill, int count, int numbers) {
    for (int l = 0; l < count; ++l) fill(l, records_ + l * size(n));
    for (int start = 0; start < numbers; start += W<T>) {
      V<T> turned[W<T>];
#pragma GCC unroll 16
      for (int l = 0; l < W<T>; ++l) turned[l] = load<T>(records_ + std::min(l, count - 1) * size(n) + start);
      transpose<T>(turned);
#pragma GCC unroll 16
      for (int l = 0; l < W<T>; ++l) H_[start + l] = turned[l];
    }
  }

  template <int n, class RowsOf>
  void read(const RowsOf& rows, int count) {
    turn<n>([&](int l, T* out) { record<n>(rows(l), out); }, count, size(n));
  }

  template <int n, class F>
  void each_kept(int f, const F& each) const {
    int i = 0;
    for (int place = 0; place < K_ - 2; ++place) {
      const int j = other(place, f);
      each(i++, inverse_[j]);
      each(i++, mean_[j]);
      for (int p = 0; p < n; ++p) each(i++, c_[j * n + p]);
    }
  }

  // The parameter that is eliminated at this place, v_f and v_k having changed theirs.
  int other(int place, int f) const { return place == f ? K_ - 1 : place + 1; }

  V<T> h(int p, int i) const { return i ? H_[p * ld_ + i - 1] : splat<T>(T(1)); }

  // M and e before any elimination; old parameters put back: what the rows say without this feature.
  template <int n>
  void begin(V<T> (&M)[n][n], V<T> (&e)[n]) const {
    const V<T> *const weight = H_ + n * ld_, *const weighted_r = H_ + n * (ld_ + 1);
    for (int p = 0; p < n; ++p) {
      V<T> own{};
      for (int i = 0; i < K_; ++i) own += h(p, i) * old_[i];
      e[p] = weighted_r[p] + weight[p] * own;
      for (int q = 0; q < n; ++q) M[p][q] = p == q ? weight[p] : V<T>{};
    }
  }

  // Parameter j: its c_j, 1 / sqrt(d_j) and mean in the coordinates of sqrt(D) L'.
  template <int n>
  void eliminate(int j, V<T> (&M)[n][n], V<T> (&e)[n]) {
    const T rounding = 4 * std::numeric_limits<T>::epsilon();
    const V<T>* const weight = H_ + n * ld_;
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

  // Parameter j; t[p] has what those that are known come to in row p.
  template <int n>
  void substitute(int j, V<T> (&t)[n]) {
    V<T> x = (mean_[j] + noise_[j]) * inverse_[j];
    for (int p = 0; p < n; ++p) x -= c_[j * n + p] * t[p];
    for (int p = 0; p < n; ++p) t[p] += h(p, j) * x;
    x_[j] = x;
  }

  const int ld_;
  const Aligned<T> records_;
  const Aligned<V<T>> memory_;
  V<T> *const H_, *const c_, *const mean_, *const inverse_;
};

}  // namespace bayesfm::ISA
