// Fixed-width vectors by the compiler's vector extension: one source for every instruction set.
//
// VECTOR_BYTES and ISA (a namespace of its own, so that the linker never mixes instruction sets) come from the build.
#pragma once

#include <cstdint>

namespace bayesfm::ISA {

template <class T>
struct Lanes {
  static constexpr int W = VECTOR_BYTES / sizeof(T);
  typedef T V __attribute__((vector_size(VECTOR_BYTES)));
  typedef T Unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(alignof(T)), may_alias));
};

template <class T>
using V = typename Lanes<T>::V;

template <class T>
inline V<T> load(const T* p) {
  return (V<T>)*reinterpret_cast<const typename Lanes<T>::Unaligned*>(p);
}

template <class T>
inline void store(T* p, V<T> v) {
  *reinterpret_cast<typename Lanes<T>::Unaligned*>(p) = v;
}

template <class T>
inline V<T> splat(T x) {
  return x - V<T>{};
}

template <class T>
inline T sum(V<T> v) {
  if constexpr (Lanes<T>::W >= 4) {
    typedef T Half __attribute__((vector_size(VECTOR_BYTES / 2)));
    typedef T Quarter __attribute__((vector_size(VECTOR_BYTES / 4)));
    Half half[2];
    __builtin_memcpy(half, &v, sizeof(v));
    const Half h = half[0] + half[1];
    Quarter quarter[2];
    __builtin_memcpy(quarter, &h, sizeof(h));
    const Quarter q = quarter[0] + quarter[1];
    T s = q[0];
    for (unsigned i = 1; i < sizeof(Quarter) / sizeof(T); ++i) s += q[i];
    return s;
  } else {
    T s = v[0];
    for (int i = 1; i < Lanes<T>::W; ++i) s += v[i];
    return s;
  }
}

}  // namespace bayesfm::ISA
