// One-hot field: for every feature the Gram matrix of its rows, a Cholesky draw, and the residual.
//
// With h = (1, q) per row, q the factors of everything else in the row, and the residual r at the present theta, feature j
// is drawn from N(P^-1 b, P^-1), P = Lambda + sum omega h h', b = Lambda mu + (sum omega h h') theta + sum omega r h.
// W features stand side by side in the lanes of the vectors for everything after the sums over rows.
#include "field.h"

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "solve.h"
#include "vector.h"

namespace bayesfm::ISA {
namespace {

constexpr int kSmall = 17;      // up to this K, and one vector, a Gram matrix lives in registers
constexpr int kTileRows = 8;    // above: tiles of 8 rows by one vector,
constexpr int kBlockRows = 32;  // over blocks of gathered data rows

template <class T>
struct Scratch {
  Scratch(int K, int stride)
      : small(K <= Lanes<T>::W && K <= kSmall),
        ld(small ? Lanes<T>::W : std::max(stride, (K + Lanes<T>::W) / Lanes<T>::W * Lanes<T>::W)),
        triangle(K * (K + 1) / 2),
        lanes(static_cast<V<T>*>(::operator new[](sizeof(V<T>) * (triangle + 5 * K), std::align_val_t(64)))),
        gram(static_cast<T*>(::operator new[](sizeof(T) * ld * (K + 1 + kBlockRows), std::align_val_t(64)))) {}
  ~Scratch() {
    ::operator delete[](lanes, std::align_val_t(64));
    ::operator delete[](gram, std::align_val_t(64));
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const bool small;
  const int ld, triangle;
  V<T>* const lanes;
  T* const gram;  // K + 1 rows of ld, then the block of data rows
};

template <class T>
void gather(const Field<T>& f, int32_t p, T* h) {
  constexpr int W = Lanes<T>::W;
  const T* first = f.table[0] + f.code[0][p] * f.stride;
  for (int64_t k = 0; k < f.stride; k += W) store<T>(h + k, load<T>(first + k));
  for (int t = 1; t < f.num_tables; ++t) {
    const T* next = f.table[t] + f.code[t][p] * f.stride;
    for (int64_t k = 0; k < f.stride; k += W) store<T>(h + k, load<T>(h + k) + load<T>(next + k));
  }
}

// Row i of the Gram matrix in one register, sum omega r h in one more.
template <class T, int K, bool kOneTable>
void gram_small(const Field<T>& f, int j, T* out) {
  constexpr int W = Lanes<T>::W;
  V<T> acc[K + 1];
#pragma GCC unroll 20
  for (int i = 0; i <= K; ++i) acc[i] = V<T>{};
  for (int32_t p = f.ptr[j]; p < f.ptr[j + 1]; ++p) {
    const int32_t n = f.row[p];
    const T* entries = f.table[0] + f.code[0][p] * f.stride;
    V<T> h = load<T>(entries);
    T sum_of_tables[W];
    if constexpr (!kOneTable) {
      for (int t = 1; t < f.num_tables; ++t) h += load<T>(f.table[t] + f.code[t][p] * f.stride);
      store<T>(sum_of_tables, h);
      entries = sum_of_tables;
    }
    const V<T> weighted = h * splat<T>(f.omega[n]);
#pragma GCC unroll 20
    for (int i = 0; i < K; ++i) acc[i] += weighted * splat<T>(entries[i]);
    acc[K] += weighted * splat<T>(f.r[n]);
  }
#pragma GCC unroll 20
  for (int i = 0; i <= K; ++i) store<T>(out + i * W, acc[i]);
}

template <class T, int K>
void gram_of_size(const Field<T>& f, int j, T* out) {
  if (f.K == K) {
    f.num_tables == 1 ? gram_small<T, K, true>(f, j, out) : gram_small<T, K, false>(f, j, out);
  } else if constexpr (K > 1) {
    gram_of_size<T, K - 1>(f, j, out);
  }
}

template <class T, int R>
void add_tile(const T* left, const T* right, const T* omega, int rows, int ld, T* out) {
  V<T> acc[R];
#pragma GCC unroll 8
  for (int a = 0; a < R; ++a) acc[a] = load<T>(out + a * ld);
  for (int b = 0; b < rows; ++b, left += ld, right += ld) {
    const V<T> x = load<T>(right) * splat<T>(omega[b]);
#pragma GCC unroll 8
    for (int a = 0; a < R; ++a) acc[a] += x * splat<T>(left[a]);
  }
#pragma GCC unroll 8
  for (int a = 0; a < R; ++a) store<T>(out + a * ld, acc[a]);
}

template <class T, int R = kTileRows>
void add_tile_of(int size, const T* left, const T* right, const T* omega, int rows, int ld, T* out) {
  if (size == R) {
    add_tile<T, R>(left, right, omega, rows, ld, out);
  } else if constexpr (R > 1) {
    add_tile_of<T, R - 1>(size, left, right, omega, rows, ld, out);
  }
}

// Upper triangle (and a little of the lower) of sum omega h (h, r)' by tiles; r stands in column K.
template <class T>
void gram_large(const Field<T>& f, int j, const Scratch<T>& s) {
  constexpr int W = Lanes<T>::W;
  const int K = f.K, ld = s.ld;
  T *out = s.gram, *block = s.gram + (K + 1) * ld, omega[kBlockRows];
  std::fill(out, block, T(0));
  for (int32_t p = f.ptr[j]; p < f.ptr[j + 1]; p += kBlockRows) {
    const int rows = std::min<int32_t>(kBlockRows, f.ptr[j + 1] - p);
    for (int b = 0; b < rows; ++b) {
      T* h = block + b * ld;
      gather<T>(f, p + b, h);
      std::fill(h + K, h + ld, T(0));
      h[K] = f.r[f.row[p + b]];
      omega[b] = f.omega[f.row[p + b]];
    }
    for (int i = 0; i < K; i += kTileRows)
      for (int c = i / W * W; c < ld; c += W)
        add_tile_of<T>(std::min(kTileRows, K - i), block + i, block + c, omega, rows, ld, out + i * ld + c);
  }
}

// Gram matrix of feature j into s.gram: rows of ld, the right-hand side in row K (small) or in column K.
template <class T>
void gram(const Field<T>& f, int j, const Scratch<T>& s) {
  if (s.small)
    gram_of_size<T, std::min(Lanes<T>::W, kSmall)>(f, j, s.gram);
  else
    gram_large<T>(f, j, s);
}

template <class T>
T right_hand_side(const Scratch<T>& s, int K, int i) {
  return s.small ? s.gram[K * s.ld + i] : s.gram[i * s.ld + K];
}

// r -= <h, delta> for the rows of feature j.
template <class T>
void move_residual(const Field<T>& f, int j, const T* delta) {
  constexpr int W = Lanes<T>::W;
  for (int32_t p = f.ptr[j]; p < f.ptr[j + 1]; ++p) {
    V<T> s{};
    for (int t = 0; t < f.num_tables; ++t) {
      const T* h = f.table[t] + f.code[t][p] * f.stride;
      for (int64_t k = 0; k < f.stride; k += W) s += load<T>(h + k) * load<T>(delta + k);
    }
    f.r[f.row[p]] -= sum<T>(s);
  }
}

}  // namespace

template <class T>
void update_field(const Field<T>& f, int lo, int hi) {
  constexpr int W = Lanes<T>::W;
  const int K = f.K;
  const int64_t m = f.m;
  Scratch<T> s(K, static_cast<int>(f.stride));
  V<T>*A = s.lanes, *b = A + s.triangle, *noise = b + K, *precision = noise + K, *old = precision + K, *x = old + K;
  T *A_lane = reinterpret_cast<T*>(A), *b_lane = reinterpret_cast<T*>(b);
  for (int first = lo; first < hi; first += W) {
    const int count = std::min(W, hi - first);
    for (int i = 0; i < K; ++i)
      for (int l = 0; l < W; ++l) {
        const int64_t j = i * m + first + std::min(l, count - 1);
        precision[i][l] = f.precision[j];
        noise[i][l] = f.noise[j];
        old[i][l] = f.theta[j];
        b[i][l] = f.precision[j] * f.mean[j];
      }
    for (int l = 0; l < W; ++l) {
      if (l < count) gram<T>(f, first + l, s);  // lanes to spare repeat the last feature
      for (int i = 0; i < K; ++i) {
        for (int j = i; j < K; ++j) A_lane[at(j, i) * W + l] = s.gram[i * s.ld + j];
        b_lane[i * W + l] += right_hand_side(s, K, i);
      }
    }
    for (int i = 0; i < K; ++i)
      for (int j = 0; j < K; ++j) b[i] += A[i >= j ? at(i, j) : at(j, i)] * old[j];
    for (int i = 0; i < K; ++i) A[at(i, i)] += precision[i];
    solve<T, V<T>>(K, A, b, noise, precision, x);
    for (int l = 0; l < count; ++l) {
      T* delta = s.gram;
      std::fill(delta, delta + f.stride, T(0));
      for (int i = 0; i < K; ++i) {
        f.theta[i * m + first + l] = x[i][l];
        delta[i] = x[i][l] - old[i][l];
      }
      move_residual<T>(f, first + l, delta);
    }
  }
}

template <class T>
void row_information(const Field<T>& f, T* packed, int lo, int hi) {
  const int K = f.K;
  Scratch<T> s(K, static_cast<int>(f.stride));
  for (int j = lo; j < hi; ++j) {
    gram<T>(f, j, s);
    T* own = packed + static_cast<int64_t>(j) * (s.triangle + K);
    for (int i = 0; i < K; ++i) {
      for (int k = i; k < K; ++k) own[at(k, i)] = s.gram[i * s.ld + k];
      own[s.triangle + i] = right_hand_side(s, K, i);
    }
  }
}

template <class T>
void move_rows(const Field<T>& f, const T* moved, int lo, int hi) {
  std::vector<T> delta(f.stride, T(0));
  for (int j = lo; j < hi; ++j) {
    for (int i = 0; i < f.K; ++i) delta[i] = moved[static_cast<int64_t>(i) * f.m + j];
    move_residual<T>(f, j, delta.data());
  }
}

template void row_information<float>(const Field<float>&, float*, int, int);
template void row_information<double>(const Field<double>&, double*, int, int);
template void move_rows<float>(const Field<float>&, const float*, int, int);
template void move_rows<double>(const Field<double>&, const double*, int, int);
template void update_field<float>(const Field<float>&, int, int);
template void update_field<double>(const Field<double>&, int, int);

}  // namespace bayesfm::ISA
