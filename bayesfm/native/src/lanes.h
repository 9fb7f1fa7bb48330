// W systems side by side, one feature per vector lane.
#pragma once

#include <algorithm>

#include "field.h"
#include "gram.h"
#include "solve.h"
#include "vector.h"

namespace bayesfm::ISA {

template <class T>
class Systems {
 public:
  explicit Systems(int K)
      : K_(K), memory_(K * (K + 1) / 2 + 6 * K), A_(memory_), b_(A_ + K * (K + 1) / 2), noise_(b_ + K),
        precision_(noise_ + K), prior_(precision_ + K), old_(prior_ + K), x_(old_ + K) {}

  // Gram matrices and right-hand sides from `count` records side by side; lanes to spare repeat the last one.
  void read_sums(const Record& record, const T* records, int count) {
    for (int start = 0; start < record.size; start += W<T>) {
      const int row = start / record.ld;
      if (row < record.k && start % record.ld + W<T> <= row) continue;  // below the diagonal
      V<T> turned[W<T>];
#pragma GCC unroll 16
      for (int l = 0; l < W<T>; ++l) turned[l] = load<T>(records + std::min(l, count - 1) * record.size + start);
      transpose<T>(turned);
      for (int l = 0; l < W<T>; ++l) put((start + l) / record.ld, (start + l) % record.ld, record.k, turned[l]);
    }
  }

  // Prior, normals and present parameters of features first, ..., first + count - 1.
  void read_features(const GroupPrior<T>& prior, const T* noise, const T* theta, int64_t m, int64_t first, int count) {
    const int32_t* group = prior.group + first;
    for (int i = 0; i < K_; ++i) {
      const T *precision = prior.precision + i * prior.num_groups, *mean = prior.mean + i * prior.num_groups;
      if (count == W<T> && group[0] == group[count - 1]) {  // groups are sorted
        precision_[i] = splat<T>(precision[group[0]]);
        prior_[i] = splat<T>(precision[group[0]] * mean[group[0]]);
        noise_[i] = load<T>(noise + i * m + first);
        old_[i] = load<T>(theta + i * m + first);
        continue;
      }
      for (int l = 0; l < W<T>; ++l) {
        const int j = std::min(l, count - 1);
        precision_[i][l] = precision[group[j]];
        prior_[i][l] = precision[group[j]] * mean[group[j]];
        noise_[i][l] = noise[i * m + first + j];
        old_[i][l] = theta[i * m + first + j];
      }
    }
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

  void write_features(T* theta, int64_t m, int64_t first, int count) const {
    for (int i = 0; i < K_; ++i)
      if (count == W<T>)
        store<T>(theta + i * m + first, x_[i]);
      else
        for (int l = 0; l < count; ++l) theta[i * m + first + l] = x_[i][l];
  }

  T change(int i, int l) const { return x_[i][l] - old_[i][l]; }

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

  const int K_;
  const Aligned<V<T>> memory_;
  V<T> *const A_, *const b_, *const noise_, *const precision_, *const prior_, *const old_, *const x_;
};

}  // namespace bayesfm::ISA
