// Fixed-width vectors by the compiler's vector extension: one source for every instruction set.
//
// VECTOR_BYTES and ISA (a namespace of its own, so that the linker never mixes instruction sets) come from the build.
#pragma once

#include <cstdint>
#include <utility>

namespace bayesfm::ISA {

// N numbers side by side; a vector register is V<T>, of W<T> numbers.
template <class T, int N>
struct VectorOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
  typedef T unaligned __attribute__((vector_size(N * sizeof(T)), aligned(alignof(T)), may_alias));
};
template <class T, int N>
using Vec = typename VectorOf<T, N>::type;
template <class T>
constexpr int W = VECTOR_BYTES / sizeof(T);
template <class T>
using V = Vec<T, W<T>>;

constexpr int kPieceBytes = 16;  // the smallest vector: no row of a table is shorter

template <class T, int N = W<T>>
inline Vec<T, N> load(const T* p) {
  return (Vec<T, N>)*reinterpret_cast<const typename VectorOf<T, N>::unaligned*>(p);
}

template <class T, int N = W<T>>
inline void store(T* p, Vec<T, N> v) {
  *reinterpret_cast<typename VectorOf<T, N>::unaligned*>(p) = v;
}

// Numbers first, first + 1, ... as far as they lie before hi; beyond, zeros are loaded and nothing is stored.
template <class T>
inline V<T> load_some(const T* p, int64_t first, int64_t hi) {
  if (hi - first >= W<T>) return load<T>(p + first);
  V<T> v{};
  for (int64_t l = 0; l < hi - first; ++l) v[l] = p[first + l];
  return v;
}

template <class T>
inline void store_some(T* p, int64_t first, int64_t hi, V<T> v) {
  if (hi - first >= W<T>)
    store<T>(p + first, v);
  else
    for (int64_t l = 0; l < hi - first; ++l) p[first + l] = v[l];
}

template <class T, int N = W<T>>
inline Vec<T, N> splat(T x) {
  return x - Vec<T, N>{};
}

namespace shuffles {

template <int w, int i, class X, int... l>
inline X broadcast(X v, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(v, v, (l / w * w + i)...);
}
template <class X, class Y, int... l>
inline Y concat(X a, X b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, l...);
}
template <class X, int... l>
inline X evens(X a, X b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, (2 * l)...);
}
template <class X, int... l>
inline X odds(X a, X b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, (2 * l + 1)...);
}
template <int start, class X, int... l>
inline X zip(X a, X b, std::integer_sequence<int, l...>) {
  constexpr int n = sizeof...(l);
  return __builtin_shufflevector(a, b, (start + l / 2 + (l % 2) * n)...);
}
template <int start, class Y, class X, int... l>
inline Y part(X v, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(v, v, (start + l)...);
}
}  // namespace shuffles

template <int N>
using Indices = std::make_integer_sequence<int, N>;

// Lane i of every piece of w lanes, all over that piece.
template <class T, int w, int i>
inline V<T> broadcast(V<T> v) {
  return shuffles::broadcast<w, i>(v, Indices<W<T>>{});
}

template <class T, int N>
inline Vec<T, 2 * N> concat(Vec<T, N> a, Vec<T, N> b) {
  return shuffles::concat<Vec<T, N>, Vec<T, 2 * N>>(a, b, Indices<2 * N>{});
}

// Piece l of w lanes by a function of l, for all W / w pieces of a register (first = 0, N = W).
template <class T, int w, int N = W<T>, class F>
inline Vec<T, N> pieces(const F& piece, int first = 0) {
  if constexpr (N == w)
    return piece(first);
  else
    return concat<T, N / 2>(pieces<T, w, N / 2>(piece, first), pieces<T, w, N / 2>(piece, first + N / 2 / w));
}

// Sum of the pieces of w lanes.
template <class T, int w, int N = W<T>>
inline Vec<T, w> fold(Vec<T, N> v) {
  if constexpr (N == w) {
    return v;
  } else {
    typedef Vec<T, N / 2> Half;
    return fold<T, w, N / 2>(shuffles::part<0, Half>(v, Indices<N / 2>{}) +
                             shuffles::part<N / 2, Half>(v, Indices<N / 2>{}));
  }
}

// Sum of all lanes.
template <class T, int N>
inline T sum(Vec<T, N> v) {
  constexpr int n = kPieceBytes / sizeof(T);
  const Vec<T, n> piece = fold<T, n, N>(v);
  T s = piece[0];
  for (int l = 1; l < n; ++l) s += piece[l];
  return s;
}

// w registers of W / w rows each, w lanes a row: the sum of every row, rows in order. v is overwritten.
template <class T, int w>
inline V<T> sum_rows(V<T>* v) {
#pragma GCC unroll 5
  for (int left = w; left > 1; left /= 2)
#pragma GCC unroll 16
    for (int i = 0; i < left / 2; ++i)
      v[i] = shuffles::evens(v[2 * i], v[2 * i + 1], Indices<W<T>>{}) +
             shuffles::odds(v[2 * i], v[2 * i + 1], Indices<W<T>>{});
  return v[0];
}

// Rows become lanes: v[i][j] and v[j][i] change places.
template <class T>
inline void transpose(V<T>* v) {
  constexpr int n = W<T>;
  V<T> next[n];
#pragma GCC unroll 5
  for (int size = 1; size < n; size *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < n / 2; ++i) {
      next[2 * i] = shuffles::zip<0>(v[i], v[i + n / 2], Indices<n>{});
      next[2 * i + 1] = shuffles::zip<n / 2>(v[i], v[i + n / 2], Indices<n>{});
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) v[i] = next[i];
  }
}

}  // namespace bayesfm::ISA
