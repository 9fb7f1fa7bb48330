// One-hot field: for every feature the Gram matrix of its rows, a Cholesky draw in two halves, and the residual.
//
// With h = (1, q) per row, q the factors of everything else in the row, and the residual r at the present theta, feature j
// is drawn from N(P^-1 b, P^-1), P = Lambda + sum omega h h', b = Lambda mu + (sum omega h h') theta + sum omega r h.
// v is eliminated first and w last, so that what is left of w depends on no hyperparameter of w: these are drawn between the
// halves (inference/conjugate/collapsed.py).
// W features stand side by side in the lanes of the vectors for everything after the sums over rows.
#include "field.h"

#include <algorithm>
#include <limits>

#include "few_rows.h"
#include "gram.h"
#include "lanes.h"
#include "solve.h"

namespace bayesfm::ISA {
namespace {

// Systems of W features; parameters in the order v_1, ..., v_k, w, but that v_f and v_k have changed places.
template <class T>
class FieldSystems : public Features<T> {
  using Features<T>::K_, Features<T>::noise_, Features<T>::precision_, Features<T>::prior_, Features<T>::old_, Features<T>::x_;

 public:
  FieldSystems(int K, int last)
      : Features<T>(K), k_(K - 1), last_(last), memory_(K * (K + 1) / 2 + 4 * K), A_(memory_), b_(A_ + K * (K + 1) / 2),
        turned_(b_ + K), noise_v_(turned_ + K), precision_v_(noise_v_ + K) {}

  void read_sums(const Record& record, const T* records, int count) {
    for_each_sum<T>(record, records, count, [&](int row, int column, V<T> x) {
      const int k = k_;
      if (row < k && row <= column && column < k)
        entry(place(column), place(row)) = x;
      else if (row == k && column < k)
        A_[at(k, place(column))] = x;
      else if (row == k + 1 && column < k)
        b_[place(column)] = x;
      else if (row == k + 2 && column == 0)
        A_[at(k, k)] = x;
      else if (row == k + 2 && column == 1)
        b_[k] = x;
    });
  }

  void eliminate_v(V<T>* corner) {
    const int k = k_, n = std::max(0, k - 1);
    for (int i = 0; i <= k; ++i) turned_[i] = old_[parameter(i)];
    for (int i = 0; i <= k; ++i) {
      V<T> sum = b_[i];
      for (int j = 0; j <= k; ++j) sum += entry(i, j) * turned_[j];
      b_[i] = sum;
    }
    for (int i = 0; i < n; ++i) {
      precision_v_[i] = precision_[parameter(i)];
      A_[at(i, i)] += precision_v_[i];
      b_[i] += prior_[parameter(i)];
    }
    eliminate<T, V<T>>(K_, n, A_, b_, precision_v_);
    const auto left = [&](int i, int j) {
      V<T> x = A_[at(i, j)];
      for (int l = 0; l < n; ++l) x -= A_[at(i, l)] * A_[at(j, l)];
      return i == j ? no_less(x, A_[at(i, j)]) : x;
    };
    const auto right = [&](int i) {
      V<T> x = b_[i];
      for (int l = 0; l < n; ++l) x -= A_[at(i, l)] * b_[l];
      return x;
    };
    for (int i = 0; i < kCorner; ++i) corner[i] = V<T>{};
    corner[2] = left(k, k);
    corner[4] = right(k);
    if (!k) return;
    corner[0] = left(k - 1, k - 1);
    corner[1] = left(k, k - 1);
    corner[3] = right(k - 1);
  }

  void keep(T* systems) const {
    each(systems, [](T* kept, V<T>& x) { store<T>(kept, x); });
  }
  void fetch(const T* systems) {
    each(systems, [](const T* kept, V<T>& x) { x = load<T>(kept); });
  }

  // The other factors, w and v_f being known.
  void substitute_v(V<T> w, V<T> v_f) {
    const int k = k_, n = std::max(0, k - 1);
    for (int i = 0; i < n; ++i) noise_v_[i] = noise_[parameter(i)];
    turned_[k] = w;
    if (k) turned_[n] = v_f;
    substitute<V<T>>(K_, n, A_, b_, noise_v_, turned_);
    for (int i = 0; i <= k; ++i) x_[parameter(i)] = turned_[i];
  }

 private:
  int place(int factor) const { return factor == last_ ? k_ - 1 : factor == k_ - 1 ? last_ : factor; }
  int parameter(int place) const { return place == k_ ? 0 : this->place(place) + 1; }
  V<T>& entry(int i, int j) const { return A_[i >= j ? at(i, j) : at(j, i)]; }

  template <class P, class F>
  void each(P* systems, const F& f) const {
    const int triangle = k_ * (k_ + 1) / 2 + k_;
    for (int i = 0; i < triangle; ++i) f(systems + i * kSideBySide, A_[i]);
    for (int i = 0; i < k_; ++i) f(systems + (triangle + i) * kSideBySide, b_[i]);
  }

  const int k_, last_;
  const Aligned<V<T>> memory_;
  V<T> *const A_, *const b_, *const turned_, *const noise_v_, *const precision_v_;
};

// Where the systems of features first, first + 1, ... are kept.
template <class T>
T* kept_at(T* systems, int k, int first) {
  return systems + first / kSideBySide * kept(k) * kSideBySide + first % kSideBySide;
}

inline int64_t most_rows(const int32_t* ptr, int first, int count) {
  int32_t most = 0;
  for (int j = first; j < first + count; ++j) most = std::max(most, ptr[j + 1] - ptr[j]);
  return most;
}

// Few enough rows that they are kept in no more numbers than a system is.
template <class T>
bool few(int64_t rows, int k) {
  return FewRows<T>::holds(rows, k + 1) && FewRows<T>::kept(rows, k) <= kept(k);
}

template <class T, bool kOneTable>
void eliminate_features(const Elimination<T>& f, int lo, int hi) {
  typedef RowsOfFeature<T, kOneTable> Rows;
  const int k = f.rows.k;
  const Record record(k, f.rows.others.stride, W<T>);
  const Aligned<T> records(static_cast<size_t>(record.size) * W<T>), block(block_size(record.ld, W<T>));
  FieldSystems<T> s(k + 1, f.last);
  FewRows<T> short_ones(k + 1, f.rows.others.stride);
  for (int first = lo; first < hi; first += W<T>) {
    const int count = std::min(W<T>, hi - first);
    const int64_t most = most_rows(f.rows.ptr, first, count);
    const auto rows = [&](int l) { return Rows(f.rows, first + l, f.omega, f.r); };
    V<T> corner[kCorner];
    if (few<T>(most, k)) {
      short_ones.read_features(f.prior, nullptr, f.theta, f.rows.m, first, count);
      short_ones.eliminate_v(rows, count, most, f.last, corner, kept_at(f.systems, k, first), kSideBySide);
    } else {
      for (int l = 0; l < count; ++l) gram<T>(k, record.ld, rows(l), block, records + l * record.size);
      s.read_sums(record, records, count);
      s.read_features(f.prior, nullptr, f.theta, f.rows.m, first, count);
      s.eliminate_v(corner);
      s.keep(kept_at(f.systems, k, first));
    }
    for (int i = 0; i < kCorner; ++i) store_some<T>(f.corner + i * f.rows.m, first, hi, corner[i]);
  }
}

template <class T, bool kOneTable>
void substitute_features(const Substitution<T>& f, int lo, int hi) {
  typedef RowsOfFeature<T, kOneTable> Rows;
  const int k = f.rows.k;
  const int64_t ld = f.rows.others.stride;
  const Aligned<T> delta(ld);
  FieldSystems<T> of_sums(k + 1, f.last);
  FewRows<T> short_ones(k + 1, ld);
  std::fill(delta + k, delta + ld, T(0));
  for (int first = lo; first < hi; first += W<T>) {
    const int count = std::min(W<T>, hi - first);
    const int64_t most = most_rows(f.rows.ptr, first, count);
    const bool is_short = few<T>(most, k);
    const auto rows = [&](int l) { return Rows(f.rows, first + l); };
    const auto end = [&](int i) { return load_some<T>(f.ends + i * f.rows.m, first, hi); };
    V<T> P = end(0);
    for (int l = count; l < W<T>; ++l) P[l] = T(1);
    Features<T>& s = is_short ? static_cast<Features<T>&>(short_ones) : of_sums;
    s.read_parameters(f.noise, f.theta, f.rows.m, first, count);
    const V<T> w = s.draw_w(P, end(1)), v_f = k ? s.draw_factor(f.last, w, end(2), end(3), end(4)) : V<T>{};
    const T* const systems = kept_at(f.systems, k, first);
    if (is_short) {
      short_ones.substitute_v(rows, count, most, f.last, w, v_f, systems, kSideBySide, [&](int l, int i, T by) {
        f.r[f.rows.row[f.rows.ptr[first + l] + i]] -= by;
      });
      s.write_features(f.theta, f.rows.m, first, count);
      continue;
    }
    of_sums.fetch(systems);
    of_sums.substitute_v(w, v_f);
    s.write_features(f.theta, f.rows.m, first, count);
    for (int l = 0; l < count; ++l) {
      for (int i = 0; i < k; ++i) delta[i] = s.change(i + 1, l);
      move_residual<T>(rows(l), s.change(0, l), delta, f.r);
    }
  }
}

template <class T, bool kOneTable>
void gather(const OwnedRows<T>& f, const T* omega, const T* r, T* packed, int lo, int hi) {
  const int k = f.k, K = k + 1, triangle = K * (K + 1) / 2;
  const Record record(k, f.others.stride, W<T>);
  const Aligned<T> sums(record.size), block(block_size(record.ld, W<T>));
  for (int j = lo; j < hi; ++j) {
    gram<T>(k, record.ld, RowsOfFeature<T, kOneTable>(f, j, omega, r), block, sums);
    T *G = packed + static_cast<int64_t>(j) * (triangle + K), *g = G + triangle;
    G[0] = sums[record.of_1()];
    g[0] = sums[record.of_r()];
    for (int i = 0; i < k; ++i) {
      G[at(i + 1, 0)] = sums[record.of_q() + i];
      g[i + 1] = sums[record.of_rq() + i];
      for (int l = i; l < k; ++l) G[at(l + 1, i + 1)] = sums[i * record.ld + l];
    }
  }
}

}  // namespace

template <class T>
void eliminate_field(const Elimination<T>& f, int lo, int hi) {
  f.rows.others.num_tables == 1 ? eliminate_features<T, true>(f, lo, hi) : eliminate_features<T, false>(f, lo, hi);
}

template <class T>
void substitute_field(const Substitution<T>& f, int lo, int hi) {
  f.rows.others.num_tables == 1 ? substitute_features<T, true>(f, lo, hi) : substitute_features<T, false>(f, lo, hi);
}

template <class T>
void row_information(const OwnedRows<T>& f, const T* omega, const T* r, T* packed, int lo, int hi) {
  f.others.num_tables == 1 ? gather<T, true>(f, omega, r, packed, lo, hi)
                           : gather<T, false>(f, omega, r, packed, lo, hi);
}

template <class T>
void move_rows(const OwnedRows<T>& f, const T* moved, T* r, int lo, int hi) {
  const Aligned<T> delta(f.others.stride);
  std::fill(delta + f.k, delta + f.others.stride, T(0));
  for (int j = lo; j < hi; ++j) {
    for (int i = 0; i < f.k; ++i) delta[i] = moved[(i + 1) * f.m + j];
    move_residual<T>(RowsOfFeature<T, false>(f, j), moved[j], delta, r);
  }
}

template void row_information<float>(const OwnedRows<float>&, const float*, const float*, float*, int, int);
template void row_information<double>(const OwnedRows<double>&, const double*, const double*, double*, int, int);
template void move_rows<float>(const OwnedRows<float>&, const float*, float*, int, int);
template void move_rows<double>(const OwnedRows<double>&, const double*, double*, int, int);
template void eliminate_field<float>(const Elimination<float>&, int, int);
template void eliminate_field<double>(const Elimination<double>&, int, int);
template void substitute_field<float>(const Substitution<float>&, int, int);
template void substitute_field<double>(const Substitution<double>&, int, int);

}  // namespace bayesfm::ISA
