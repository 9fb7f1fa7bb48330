// One-hot field: for every feature the Gram matrix of its rows, a Cholesky draw, and the residual.
//
// With h = (1, q) per row, q the factors of everything else in the row, and the residual r at the present theta, feature j
// is drawn from N(P^-1 b, P^-1), P = Lambda + sum omega h h', b = Lambda mu + (sum omega h h') theta + sum omega r h.
// W features stand side by side in the lanes of the vectors for everything after the sums over rows.
#include "field.h"

#include <algorithm>

#include "gram.h"
#include "lanes.h"
#include "solve.h"

namespace bayesfm::ISA {
namespace {

template <class T, bool kOneTable>
void update(const Field<T>& f, int lo, int hi) {
  typedef RowsOfFeature<T, kOneTable> Rows;
  const int k = f.rows.k;
  const Record record(k, f.rows.others.stride, W<T>);
  const Aligned<T> records(static_cast<size_t>(record.size) * W<T>), block(block_size(record.ld, W<T>)), delta(record.ld);
  Systems<T> s(k + 1);
  std::fill(delta + k, delta + record.ld, T(0));
  for (int first = lo; first < hi; first += W<T>) {
    const int count = std::min(W<T>, hi - first);
    for (int l = 0; l < count; ++l)
      gram<T>(k, record.ld, Rows(f.rows, first + l, f.omega, f.r), block, records + l * record.size);
    s.read_sums(record, records, count);
    s.read_features(f.prior, f.noise, f.theta, f.rows.m, first, count);
    s.draw();
    s.write_features(f.theta, f.rows.m, first, count);
    for (int l = 0; l < count; ++l) {
      for (int i = 0; i < k; ++i) delta[i] = s.change(i + 1, l);
      move_residual<T>(Rows(f.rows, first + l), s.change(0, l), delta, f.r);
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
void update_field(const Field<T>& f, int lo, int hi) {
  f.rows.others.num_tables == 1 ? update<T, true>(f, lo, hi) : update<T, false>(f, lo, hi);
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
template void update_field<float>(const Field<float>&, int, int);
template void update_field<double>(const Field<double>&, int, int);

}  // namespace bayesfm::ISA
