// One-hot field: for every feature the best normal belief about its parameters, given those about all other units.
//
// With h = (1, q) per row, q the mean factors of everything else in it, and the residual r at the present means, feature j has
// the precision P = Lambda + sum omega (h h' + C), and its mean moves by P^-1 (Lambda (mu - m) + sum omega (r h - d - C m)), C
// being the covariance of those factors and d that of theirs with the rest of the row's eta (inference/conjugate/mean_field.py).
#include "beliefs.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "gram.h"
#include "lanes.h"
#include "real.h"
#include "solve.h"

namespace bayesfm::ISA {
namespace {

inline V<float> logarithm(V<float> x) { return log_of(x); }
inline V<double> logarithm(V<double> x) {
  for (int l = 0; l < W<double>; ++l) x[l] = std::log(x[l]);
  return x;
}

// Sums over the rows of a feature: of omega C (its triangle by rows), then of omega d.
template <class T, bool kOneTable>
class SpreadSums {
  typedef RowsOfFeature<T, kOneTable> Rows;

 public:
  explicit SpreadSums(const Beliefs<T>& f)
      : f_(f), at_row_(f.rows.k), row_(kOneTable ? 0 : f.stride), size_((at_row_.A() + W<T> - 1) / W<T> * W<T>) {}

  int size() const { return size_; }

  void add_up(const Rows& rows, T* out) const {
    std::fill(out, out + size_, T(0));
    if constexpr (kOneTable)
      add_single(rows, out);
    else
      add_several(rows, out);
  }

 private:
  // Where a row has a single other feature, A + C q is s.
  void add_single(const Rows& rows, T* out) const {
    const auto entry = [&](int32_t p) { return f_.spread[0] + rows.code[p] * f_.stride; };
    int32_t p = rows.first;
    for (; p + 4 <= rows.last; p += 4) {
      const T *x0 = entry(p), *x1 = entry(p + 1), *x2 = entry(p + 2), *x3 = entry(p + 3);
      const V<T> w0 = splat<T>(rows.weight(p)), w1 = splat<T>(rows.weight(p + 1));
      const V<T> w2 = splat<T>(rows.weight(p + 2)), w3 = splat<T>(rows.weight(p + 3));
      for (int c = 0; c < size_; c += W<T>)
        store<T>(out + c, load<T>(out + c) + ((w0 * load<T>(x0 + c) + w1 * load<T>(x1 + c)) +
                                              (w2 * load<T>(x2 + c) + w3 * load<T>(x3 + c))));
    }
    for (; p < rows.last; ++p) add(entry(p), rows.weight(p), out);
  }

  void add_several(const Rows& rows, T* out) const {
    const int k = at_row_.k;
    T *const u = row_, *const d = u + at_row_.s();
    const T *const A = u + at_row_.A(), *const q = u + at_row_.m();
    for (int32_t p = rows.first; p < rows.last; ++p) {
      for (int64_t c = 0; c < f_.stride; c += W<T>) {
        V<T> sum{};
        for (int i = 0; i < f_.rows.others.num_tables; ++i)
          sum += load<T>(f_.spread[i] + f_.rows.others.code[i][p] * f_.stride + c);
        store<T>(u + c, sum);
      }
      std::copy(A, A + k, d);
      for (int i = 0; i < k; ++i) {
        const T *const C = u + at(i, 0), q_i = q[i];
        T product = C[i] * q_i;
        for (int j = 0; j < i; ++j) {
          product += C[j] * q[j];
          d[j] += C[j] * q_i;
        }
        d[i] += product;
      }
      add(u, rows.weight(p), out);
    }
  }

  void add(const T* x, T weight, T* out) const {
    for (int c = 0; c < size_; c += W<T>) store<T>(out + c, load<T>(out + c) + splat<T>(weight) * load<T>(x + c));
  }

  const Beliefs<T>& f_;
  const SpreadRow at_row_;
  const Aligned<T> row_;
  const int size_;
};

// The beliefs of W features side by side.
template <class T>
class Posteriors : public Systems<T> {
  using Systems<T>::K_, Systems<T>::precision_, Systems<T>::prior_, Systems<T>::old_, Systems<T>::x_, Systems<T>::A_,
      Systems<T>::b_;

 public:
  explicit Posteriors(int K) : Systems<T>(K), memory_(3 * K), floor_(memory_), row_(floor_ + K), scaled_(row_ + K) {}

  // After read_sums and read_features: C joins the information on v, and d + C m is taken off the gradient.
  void read_spreads(const T* sums, int size, int count) {
    const int k = K_ - 1, triangle = k * (k + 1) / 2;
    int i = 0, j = 0;
    for (int start = 0; start < size; start += W<T>) {
      V<T> turned[W<T>];
#pragma GCC unroll 16
      for (int l = 0; l < W<T>; ++l) turned[l] = load<T>(sums + std::min(l, count - 1) * size + start);
      transpose<T>(turned);
      for (int l = 0; l < W<T> && start + l < triangle + k; ++l) {
        if (start + l >= triangle) {
          b_[start + l - triangle + 1] -= turned[l];
          continue;
        }
        A_[at(i + 1, j + 1)] += turned[l];
        b_[i + 1] -= turned[l] * old_[j + 1];
        if (j < i) b_[j + 1] -= turned[l] * old_[i + 1];
        if (++j > i) ++i, j = 0;
      }
    }
  }

  // Turns A into -P^-1 by sweeps over all pivots (Goodnight 1979), and sets x to the new mean; returns log |P^-1|. Pivots have
  // the floor of solve.h.
  V<T> solve() {
    const T rounding = 4 * std::numeric_limits<T>::epsilon();
    V<T> log_det{};
    for (int i = 0; i < K_; ++i) {
      V<T>& d = A_[at(i, i)];
      d += precision_[i];
      const V<T> by_rounding = d * rounding;
      floor_[i] = by_rounding > precision_[i] ? by_rounding : precision_[i];
      b_[i] += prior_[i] - precision_[i] * old_[i];
    }
    for (int i = 0; i < K_; ++i) {
      for (int j = 0; j < K_; ++j) row_[j] = A_[i >= j ? at(i, j) : at(j, i)];
      const V<T> pivot = row_[i] > floor_[i] ? row_[i] : floor_[i], inverse = T(1) / pivot;
      log_det -= logarithm(pivot);
      for (int j = 0; j < K_; ++j) scaled_[j] = row_[j] * inverse;
      for (int l = 0; l < K_; ++l)
        for (int j = 0; j <= l; ++j) A_[at(l, j)] -= scaled_[l] * row_[j];
      for (int j = 0; j < K_; ++j) A_[i >= j ? at(i, j) : at(j, i)] = scaled_[j];
      A_[at(i, i)] = -inverse;
    }
    for (int i = 0; i < K_; ++i) {
      V<T> step{};
      for (int j = 0; j < K_; ++j) step -= A_[i >= j ? at(i, j) : at(j, i)] * b_[j];
      x_[i] = old_[i] + step;
    }
    return log_det;
  }

  void write_cov(T* cov, int64_t m, int64_t first, int64_t hi) const {
    for (int i = 0; i < K_; ++i)
      for (int j = 0; j <= i; ++j) {
        store_some<T>(cov + (int64_t(i) * K_ + j) * m, first, hi, -A_[at(i, j)]);
        if (i != j) store_some<T>(cov + (int64_t(j) * K_ + i) * m, first, hi, -A_[at(i, j)]);
      }
  }

 private:
  const Aligned<V<T>> memory_;
  V<T> *const floor_, *const row_, *const scaled_;
};

template <class T, bool kOneTable>
void update(const Beliefs<T>& f, int lo, int hi) {
  typedef RowsOfFeature<T, kOneTable> Rows;
  const int k = f.rows.k;
  const Record record(k, f.rows.others.stride, W<T>);
  const SpreadSums<T, kOneTable> spread(f);
  const Aligned<T> records(static_cast<size_t>(record.size) * W<T>), block(block_size(record.ld, W<T>)), delta(record.ld);
  const Aligned<T> spreads(static_cast<size_t>(spread.size()) * W<T>);
  Posteriors<T> s(k + 1);
  std::fill(delta + k, delta + record.ld, T(0));
  for (int first = lo; first < hi; first += W<T>) {
    const int count = std::min(W<T>, hi - first);
    for (int l = 0; l < count; ++l) {
      const Rows rows(f.rows, first + l, f.omega, f.r);
      gram<T>(k, record.ld, rows, block, records + l * record.size);
      spread.add_up(rows, spreads + l * spread.size());
    }
    s.read_sums(record, records, count);
    s.read_features(f.prior, nullptr, f.mean, f.rows.m, first, count);
    s.read_spreads(spreads, spread.size(), count);
    store_some<T>(f.log_det, first, first + count, s.solve());
    s.write_cov(f.cov, f.rows.m, first, first + count);
    s.write_features(f.mean, f.rows.m, first, count);
    for (int l = 0; l < count; ++l) {
      for (int i = 0; i < k; ++i) delta[i] = s.change(i + 1, l);
      move_residual<T>(Rows(f.rows, first + l), s.change(0, l), delta, f.r);
    }
  }
}

}  // namespace

template <class T>
void update_beliefs(const Beliefs<T>& f, int lo, int hi) {
  f.rows.others.num_tables == 1 ? update<T, true>(f, lo, hi) : update<T, false>(f, lo, hi);
}

template void update_beliefs<float>(const Beliefs<float>&, int, int);
template void update_beliefs<double>(const Beliefs<double>&, int, int);

}  // namespace bayesfm::ISA
