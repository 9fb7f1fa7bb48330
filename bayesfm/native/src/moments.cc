// Mean and scatter of each group of features, in two passes, so that nothing cancels; summed in double precision. And scatter
// matrices.
#include "moments.h"

#include <algorithm>
#include <cmath>

#include "gram.h"
#include "real.h"
#include "vector.h"

namespace bayesfm::ISA {
namespace {

constexpr int64_t kBlock = 64;  // numbers that a lane adds up before it is flushed

// Sum of f(x_j) over some features.
template <class T, class F>
double sum_of(const T* x, int64_t count, const F& f) {
  double sum = 0;
  int64_t j = 0;
  while (j + W<T> <= count) {
    const int64_t end = std::min(count - W<T> + 1, j + kBlock * W<T>);
    V<T> acc{};
    for (; j < end; j += W<T>) acc += f(load<T>(x + j));
    for (int l = 0; l < W<T>; ++l) sum += acc[l];
  }
  T rest[W<T>] = {};
  std::copy(x + j, x + count, rest);
  const V<T> last = f(load<T>(rest));
  for (int64_t l = 0; l < count - j; ++l) sum += last[l];
  return sum;
}

inline V<float> log_of_1_plus(V<float> x) { return log_1p(x); }
inline V<double> log_of_1_plus(V<double> x) {
  for (int l = 0; l < W<double>; ++l) x[l] = std::log1p(x[l]);
  return x;
}

// The terms of ScaleTerms for W features.
template <class T>
struct Shrinkage {
  V<T> from, at;
  void add(V<T> c, V<T> d, V<T>* acc) const {
    const V<T> q = T(1) / (at + c), before = T(1) / (from + c), t = c * q, s = at * q, e = d * q, te = t * e;
    acc[0] += t;
    acc[1] += t * t;
    acc[2] += t * t * s;
    acc[3] += e;
    acc[4] += te;
    acc[5] += te * s;
    acc[6] += e * e;
    acc[7] += e * e * s;
    acc[8] += T(0.5) * (d * before * e * (from - at) - log_of_1_plus(c * before * ((from - at) / at)));
  }
};

constexpr int kTile = 4;
constexpr int64_t kChunk = 512;  // features whose rows stay in the cache while all pairs of rows are multiplied

// out[i][j] += <a_i, b_j> for kTile rows a and b of `count` numbers, a whole number of registers.
template <class T>
void add_products(const T* a, const T* b, int64_t count, int64_t k, int64_t rows, int64_t columns, double* out) {
  V<T> acc[kTile][kTile] = {};
  for (int64_t c = 0; c < count; c += W<T>) {
    V<T> right[kTile];
#pragma GCC unroll 4
    for (int j = 0; j < kTile; ++j) right[j] = load<T>(b + j * kChunk + c);
#pragma GCC unroll 4
    for (int i = 0; i < kTile; ++i) {
      const V<T> left = load<T>(a + i * kChunk + c);
#pragma GCC unroll 4
      for (int j = 0; j < kTile; ++j) acc[i][j] += left * right[j];
    }
  }
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) out[i * k + j] += sum<T, W<T>>(acc[i][j]);
}

}  // namespace

template <class T>
void group_scatter(const Scatter<T>& f) {
  const int64_t k = f.k, padded = (k + kTile - 1) / kTile * kTile;
  const Aligned<T> away(static_cast<size_t>(padded * kChunk));
  std::fill(away + k * kChunk, away + padded * kChunk, T(0));
  std::fill(f.out, f.out + k * k, 0.0);
  for (int64_t first = f.lo; first < f.hi; first += kChunk) {
    const int64_t count = std::min(kChunk, f.hi - first), whole = (count + W<T> - 1) / W<T> * W<T>;
    for (int64_t i = 0; i < k; ++i) {
      const T *x = f.x + i * f.m + first, centre = f.centre[i * f.num_groups];
      T* row = away + i * kChunk;
      for (int64_t c = 0; c < count; ++c) row[c] = x[c] - centre;
      std::fill(row + count, row + whole, T(0));
    }
    for (int64_t i = 0; i < k; i += kTile)
      for (int64_t j = i; j < k; j += kTile)
        add_products<T>(away + i * kChunk, away + j * kChunk, whole, k, std::min<int64_t>(kTile, k - i),
                        std::min<int64_t>(kTile, k - j), f.out + i * k + j);
  }
}

template void group_scatter<float>(const Scatter<float>&);
template void group_scatter<double>(const Scatter<double>&);

template <class T>
void group_moments(const T* row, const int32_t* group, int64_t m, int64_t num_groups, T* mean, T* scatter) {
  int64_t start = 0;
  for (int64_t g = 0; g < num_groups; ++g) {
    const int64_t end = std::upper_bound(group + start, group + m, static_cast<int32_t>(g)) - group;
    const int64_t count = end - start;
    const double sum = sum_of(row + start, count, [](V<T> x) { return x; });
    mean[g] = static_cast<T>(count ? sum / static_cast<double>(count) : 0.0);
    const V<T> centre = splat<T>(mean[g]);
    scatter[g] = static_cast<T>(sum_of(row + start, count, [&](V<T> x) { return (x - centre) * (x - centre); }));
    start = end;
  }
}

template <class T>
void scale_sums(const ScaleTerms<T>& f) {
  int64_t start = 0;
  for (int64_t g = 0; g < f.num_groups; ++g) {
    const int64_t end = std::upper_bound(f.group + start, f.group + f.m, static_cast<int32_t>(g)) - f.group;
    const Shrinkage<T> terms{splat<T>(f.from[g]), splat<T>(f.at[g])};
    double sums[kScaleSums] = {};
    for (int64_t j = start; j < end;) {
      const int64_t last = std::min(end, j + kBlock * W<T>);
      V<T> acc[kScaleSums] = {};
      for (; j < last; j += W<T>)  // of a feature beyond the last one, zeros: all of its terms are zero
        terms.add(load_some<T>(f.c, j, last), load_some<T>(f.d, j, last), acc);
      j = last;
      for (int i = 0; i < kScaleSums; ++i)
        for (int l = 0; l < W<T>; ++l) sums[i] += acc[i][l];
    }
    for (int i = 0; i < kScaleSums; ++i) f.out[i * f.num_groups + g] = static_cast<T>(sums[i]);
    start = end;
  }
}

template void scale_sums<float>(const ScaleTerms<float>&);
template void scale_sums<double>(const ScaleTerms<double>&);

template void group_moments<float>(const float*, const int32_t*, int64_t, int64_t, float*, float*);
template void group_moments<double>(const double*, const int32_t*, int64_t, int64_t, double*, double*);

}  // namespace bayesfm::ISA
