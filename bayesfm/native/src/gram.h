// Sums over the data rows of one feature, and the way back to their residuals.
//
// With h = (1, q), q the factors of everything else in the row: sum omega h h' and sum omega r h, and later r - <h, delta>.
// The leading 1 is kept out of the vectors, so that ranks of 8, 16, 32, 64 fill them.
#pragma once

#include <algorithm>
#include <new>

#include "field.h"
#include "vector.h"

namespace bayesfm::ISA {

constexpr int kTileRows = 8;    // beyond one register: tiles of 8 rows by one or two registers,
constexpr int kBlockRows = 32;  // over blocks of gathered data rows

// Sums of one feature: k rows sum omega q_i q of `stride` numbers (above the diagonal, below it here and there), then
// sum omega q, sum omega r q, then sum omega and sum omega r.
struct Record {
  explicit Record(int k, int64_t stride, int lanes)
      : k(k), ld(static_cast<int>(stride)), size(((k + 2) * ld + 2 + lanes - 1) / lanes * lanes) {}
  int of_q() const { return k * ld; }
  int of_rq() const { return (k + 1) * ld; }
  int of_1() const { return (k + 2) * ld; }
  int of_r() const { return (k + 2) * ld + 1; }
  const int k, ld, size;
};

template <class T>
class Aligned {
 public:
  explicit Aligned(size_t count) : data_(static_cast<T*>(::operator new[](sizeof(T) * count, std::align_val_t(64)))) {}
  ~Aligned() { ::operator delete[](data_, std::align_val_t(64)); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  operator T*() const { return data_; }  // NOLINT: it is an array

 private:
  T* const data_;
};

// Where h comes from: entries first, ..., last - 1, each with a weight, a weighted residual, and the lanes c, ..., c + N - 1 of q.
template <class T, bool kOneTable>
struct RowsOfFeature {
  RowsOfFeature(const OwnedRows<T>& f, int64_t j, const T* omega = nullptr, const T* r = nullptr)
      : f(f), first(f.ptr[j]), last(f.ptr[j + 1]), row(f.row), omega(omega), r(r), table(f.others.table[0]),
        code(f.others.code[0]), stride(f.others.stride) {}
  T weight(int32_t p) const { return omega[row[p]]; }
  T weighted_r(int32_t p) const { return omega[row[p]] * r[row[p]]; }
  static constexpr bool kInMemory = kOneTable;  // q stands somewhere as it is
  const T* entries(int32_t p) const { return table + code[p] * stride; }
  template <int N>
  Vec<T, N> q(int32_t p, int64_t c = 0) const {
    const Others<T>& o = f.others;
    Vec<T, N> sum = load<T, N>(table + code[p] * stride + c);
    if constexpr (!kOneTable)
      for (int t = 1; t < o.num_tables; ++t) sum += load<T, N>(o.table[t] + o.code[t][p] * stride + c);
    return sum;
  }
  const OwnedRows<T>& f;
  const int32_t first, last;
  const int32_t* const row;
  const T *const omega, *const r;
  const T* const table;  // the first one
  const int32_t* const code;
  const int64_t stride;
};

// Rows of w numbers, W / w of them in a register: row i of the Gram matrix is one accumulator.
template <class T, int w, int k, class Rows>
void gram_small(const Rows& rows, T* out) {
  constexpr int P = W<T> / w;
  V<T> acc[k + 4];
#pragma GCC unroll 20
  for (int i = 0; i < k + 4; ++i) acc[i] = V<T>{};
  const auto add = [&](int32_t p, int count) __attribute__((always_inline)) {
    // Beyond the last entry, the last one with weight zero.
    const V<T> weight = pieces<T, w>([&](int l) { return splat<T, w>(l < count ? rows.weight(p + l) : T(0)); });
    const V<T> weighted_r = pieces<T, w>([&](int l) { return splat<T, w>(l < count ? rows.weighted_r(p + l) : T(0)); });
    const V<T> q = pieces<T, w>([&](int l) { return rows.template q<w>(p + std::min(l, count - 1)); });
    const V<T> weighted = q * weight;
    if constexpr (P == 1 && Rows::kInMemory) {  // saves the registers that say which lane to repeat
      const T* entries = rows.entries(p);
#pragma GCC unroll 16
      for (int i = 0; i < k; ++i) acc[i] += splat<T>(entries[i]) * weighted;
    } else {
      [&]<int... i>(std::integer_sequence<int, i...>) { ((acc[i] += broadcast<T, w, i>(q) * weighted), ...); }
      (Indices<k>{});
    }
    acc[k] += weighted;
    acc[k + 1] += q * weighted_r;
    acc[k + 2] += weight;
    acc[k + 3] += weighted_r;
  };
  int32_t p = rows.first;
  for (; p + P <= rows.last; p += P) add(p, P);
  if (p < rows.last) add(p, rows.last - p);
#pragma GCC unroll 20
  for (int i = 0; i < k + 2; ++i) store<T, w>(out + i * w, fold<T, w>(acc[i]));
  out[(k + 2) * w] = fold<T, w>(acc[k + 2])[0];
  out[(k + 2) * w + 1] = fold<T, w>(acc[k + 3])[0];
}

template <class T, int w, int k, class Rows>
void gram_of_rank(int rank, const Rows& rows, T* out) {
  if (rank == k) {
    gram_small<T, w, k>(rows, out);
  } else if constexpr (k > 0) {
    gram_of_rank<T, w, k - 1>(rank, rows, out);
  }
}

// out += left' right over some rows, R rows by C registers.
template <class T, int R, int C>
void add_tile(const T* left, int ld_left, const T* right, int ld_right, int rows, int ld, T* out) {
  V<T> acc[R][C];
#pragma GCC unroll 8
  for (int a = 0; a < R; ++a)
#pragma GCC unroll 2
    for (int c = 0; c < C; ++c) acc[a][c] = load<T>(out + a * ld + c * W<T>);
  for (int b = 0; b < rows; ++b, left += ld_left, right += ld_right) {
    V<T> x[C];
#pragma GCC unroll 2
    for (int c = 0; c < C; ++c) x[c] = load<T>(right + c * W<T>);
#pragma GCC unroll 8
    for (int a = 0; a < R; ++a)
#pragma GCC unroll 2
      for (int c = 0; c < C; ++c) acc[a][c] += x[c] * splat<T>(left[a]);
  }
#pragma GCC unroll 8
  for (int a = 0; a < R; ++a)
#pragma GCC unroll 2
    for (int c = 0; c < C; ++c) store<T>(out + a * ld + c * W<T>, acc[a][c]);
}

template <class T, int R = kTileRows>
void add_tiles(int size, const T* left, int ld_left, const T* right, int ld_right, int rows, int ld, T* out, int columns) {
  if (size == R) {
    int c = 0;
    if constexpr (VECTOR_BYTES == 64)  // sixteen accumulators: there are 32 registers
      for (; c + 2 * W<T> <= columns; c += 2 * W<T>)
        add_tile<T, R, 2>(left, ld_left, right + c, ld_right, rows, ld, out + c);
    for (; c < columns; c += W<T>) add_tile<T, R, 1>(left, ld_left, right + c, ld_right, rows, ld, out + c);
  } else if constexpr (R > 1) {
    add_tiles<T, R - 1>(size, left, ld_left, right, ld_right, rows, ld, out, columns);
  }
}

// Of blocks of entries: (q, omega, omega r) on the left, omega q on the right.
template <class T, class Rows>
void gram_large(int k, int ld, const Rows& rows, T* block, T* out) {
  const int ld_left = ld + W<T>;
  T *left = block, *right = block + kBlockRows * ld_left;
  T sum_omega = T(0), sum_r = T(0);
  std::fill(out, out + (k + 2) * ld, T(0));
  for (int32_t first = rows.first; first < rows.last; first += kBlockRows) {
    const int count = std::min<int32_t>(kBlockRows, rows.last - first);
    for (int b = 0; b < count; ++b) {
      const T weight = rows.weight(first + b), weighted_r = rows.weighted_r(first + b);
      for (int c = 0; c < ld; c += W<T>) {
        const V<T> q = rows.template q<W<T>>(first + b, c);
        store<T>(left + b * ld_left + c, q);
        store<T>(right + b * ld + c, q * splat<T>(weight));
      }
      left[b * ld_left + ld] = weight;
      left[b * ld_left + ld + 1] = weighted_r;
      sum_omega += weight;
      sum_r += weighted_r;
    }
    for (int i = 0; i < k; i += kTileRows) {
      const int c = i / W<T> * W<T>;
      add_tiles<T>(std::min(kTileRows, k - i), left + i, ld_left, right + c, ld, count, ld, out + i * ld + c, ld - c);
    }
    add_tiles<T>(2, left + ld, ld_left, left, ld_left, count, ld, out + k * ld, ld);
  }
  out[(k + 2) * ld] = sum_omega;
  out[(k + 2) * ld + 1] = sum_r;
}

inline size_t block_size(int64_t stride, int lanes) { return kBlockRows * (2 * stride + lanes); }

// The record of one feature in k factors, in rows of `stride`.
template <class T, int w = W<T>, class Rows>
void gram(int k, int64_t stride, const Rows& rows, T* block, T* out) {
  if (stride > W<T>) {
    gram_large<T>(k, static_cast<int>(stride), rows, block, out);
  } else if (stride == w) {
    gram_of_rank<T, w, w>(k, rows, out);
  } else if constexpr (w * sizeof(T) > kPieceBytes) {
    gram<T, w / 2>(k, stride, rows, block, out);
  }
}

// r -= delta_0 + <q, delta_1...> for the rows of a feature; delta holds its factors, padded with zeros, as the tables are.
template <class T, int w = W<T>, bool kOneTable>
void move_residual(const RowsOfFeature<T, kOneTable>& rows, T delta_w, const T* delta, T* r) {
  if (rows.stride < w) {
    if constexpr (w * sizeof(T) > kPieceBytes) move_residual<T, w / 2>(rows, delta_w, delta, r);
    return;
  }
  constexpr int P = W<T> / w;
  const V<T> d = pieces<T, w>([&](int) { return load<T, w>(delta); });
  const auto move = [&](int32_t first, int count) __attribute__((always_inline)) {
    V<T> products[w];
#pragma GCC unroll 16
    for (int i = 0; i < w; ++i) {
      products[i] = V<T>{};
      if (i * P >= count) continue;
      products[i] = d * pieces<T, w>([&](int l) {
        return rows.template q<w>(first + std::min(i * P + l, count - 1));
      });
      if constexpr (w == W<T>)
        for (int64_t c = W<T>; c < rows.stride; c += W<T>)
          products[i] += load<T>(delta + c) * rows.template q<W<T>>(first + i, c);
    }
    T moved[W<T>];
    store<T>(moved, sum_rows<T, w>(products) + splat<T>(delta_w));
    for (int l = 0; l < count; ++l) r[rows.row[first + l]] -= moved[l];
  };
  int32_t p = rows.first;
  for (; p + W<T> <= rows.last; p += W<T>) move(p, W<T>);
  if (p < rows.last) move(p, rows.last - p);
}

}  // namespace bayesfm::ISA
