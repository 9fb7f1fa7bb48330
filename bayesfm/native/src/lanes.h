// Parameters and systems of W features side by side.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>

#include "field.h"
#include "gram.h"
#include "solve.h"
#include "vector.h"

namespace bayesfm::ISA {

// x, but no less than the rounding of what it is a difference of.
template <class S>
inline S no_less(S x, S of) {
  const S rounding = of * (4 * std::numeric_limits<std::remove_reference_t<decltype(of[0])>>::epsilon());
  return x > rounding ? x : rounding;
}

// Parameters of W features side by side, one feature per vector lane.
template <class T>
class Features {
 public:
  explicit Features(int K)
      : K_(K), memory_(5 * K), noise_(memory_), precision_(noise_ + K), prior_(precision_ + K), old_(prior_ + K),
        x_(old_ + K) {}

  // Prior, normals (none where they are null) and present parameters of features first, ..., first + count - 1.
  void read_features(const GroupPrior<T>& prior, const T* noise, const T* theta, int64_t m, int64_t first, int count) {
    read_parameters(noise, theta, m, first, count);
    const int32_t* group = prior.group + first;
    for (int i = 0; i < K_; ++i) {
      const T *precision = prior.precision + i * prior.num_groups, *mean = prior.mean + i * prior.num_groups;
      if (group[0] == group[count - 1]) {  // groups are sorted
        precision_[i] = splat<T>(precision[group[0]]);
        prior_[i] = splat<T>(precision[group[0]] * mean[group[0]]);
        continue;
      }
      for (int l = 0; l < W<T>; ++l) {
        const int j = std::min(l, count - 1);
        precision_[i][l] = precision[group[j]];
        prior_[i][l] = precision[group[j]] * mean[group[j]];
      }
    }
  }

  // Normals and present parameters; lanes to spare repeat the last feature.
  void read_parameters(const T* noise, const T* theta, int64_t m, int64_t first, int count) {
    for (int i = 0; i < K_; ++i) {
      if (count == W<T>) {
        noise_[i] = noise ? load<T>(noise + i * m + first) : V<T>{};
        old_[i] = load<T>(theta + i * m + first);
        continue;
      }
      for (int l = 0; l < W<T>; ++l) {
        const int j = std::min(l, count - 1);
        noise_[i][l] = noise ? noise[i * m + first + j] : T(0);
        old_[i][l] = theta[i * m + first + j];
      }
    }
  }

  // w of precision P and linear term b.
  V<T> draw_w(V<T> P, V<T> b) const {
    const V<T> inverse = inverse_sqrt(P);
    return (b * inverse + noise_[0]) * inverse;
  }

  // v_f, w being known, from its column of the Cholesky factor and the right-hand side.
  V<T> draw_factor(int f, V<T> w, V<T> inverse, V<T> of_w, V<T> right) const {
    return (right + noise_[f + 1] - of_w * w) * inverse;
  }

  void write_features(T* theta, int64_t m, int64_t first, int count) const {
    for (int i = 0; i < K_; ++i)
      if (count == W<T>)
        store<T>(theta + i * m + first, x_[i]);
      else
        for (int l = 0; l < count; ++l) theta[i * m + first + l] = x_[i][l];
  }

  T change(int i, int l) const { return x_[i][l] - old_[i][l]; }

 protected:
  const int K_;

 private:
  const Aligned<V<T>> memory_;

 protected:
  V<T> *const noise_, *const precision_, *const prior_, *const old_, *const x_;
};

// put(row, column, x) for every place of `count` records side by side; lanes to spare repeat the last one.
template <class T, class F>
void for_each_sum(const Record& record, const T* records, int count, const F& put) {
  for (int start = 0; start < record.size; start += W<T>) {
    const int row = start / record.ld;
    if (row < record.k && start % record.ld + W<T> <= row) continue;  // below the diagonal
    V<T> turned[W<T>];
#pragma GCC unroll 16
    for (int l = 0; l < W<T>; ++l) turned[l] = load<T>(records + std::min(l, count - 1) * record.size + start);
    transpose<T>(turned);
    for (int l = 0; l < W<T>; ++l) put((start + l) / record.ld, (start + l) % record.ld, turned[l]);
  }
}

// Their systems of K equations, from the sums over their rows.
template <class T>
class Systems : public Features<T> {
 protected:
  using Features<T>::K_, Features<T>::noise_, Features<T>::precision_, Features<T>::prior_, Features<T>::old_, Features<T>::x_;

 public:
  explicit Systems(int K) : Features<T>(K), memory_(K * (K + 1) / 2 + K), A_(memory_), b_(A_ + K * (K + 1) / 2) {}

  // Gram matrices and right-hand sides.
  void read_sums(const Record& record, const T* records, int count) {
    for_each_sum<T>(record, records, count, [&](int row, int column, V<T> x) { put(row, column, record.k, x); });
  }

  // x ~ N(P^-1 b, P^-1).
  void draw() {
    for (int i = 0; i < K_; ++i) {
      V<T> sum = b_[i] + prior_[i];
      for (int j = 0; j < K_; ++j) sum += A_[i >= j ? at(i, j) : at(j, i)] * old_[j];
      b_[i] = sum;
    }
    for (int i = 0; i < K_; ++i) A_[at(i, i)] += precision_[i];
    solve<T, V<T>>(K_, A_, b_, noise_, precision_, x_);
  }

 private:
  void put(int row, int column, int k, V<T> x) {
    if (row < k && row <= column && column < k)
      A_[at(column + 1, row + 1)] = x;
    else if (row == k && column < k)
      A_[at(column + 1, 0)] = x;
    else if (row == k + 1 && column < k)
      b_[column + 1] = x;
    else if (row == k + 2 && column == 0)
      A_[0] = x;
    else if (row == k + 2 && column == 1)
      b_[0] = x;
  }

  const Aligned<V<T>> memory_;

 protected:
  V<T> *const A_, *const b_;
};

}  // namespace bayesfm::ISA
