// eta of every data row from the summaries (E, Q) of its units: E adds up, and each unit's Q meets those before it.
#include "rows.h"

#include <algorithm>

#include "vector.h"

namespace bayesfm::ISA {
namespace {

// Lanes c, ..., c + w - 1 of sum over pairs of units of Q Q'; U: the number of units, 0 where it is not known beforehand.
template <class T, int w, int U>
inline Vec<T, w> pairs(const Rows<T>& f, int64_t n, int64_t c) {
  const int num_units = U ? U : f.num_units;
  Vec<T, w> before = load<T, w>(f.Q[0] + f.code[0][n] * f.stride + c), sum{};
#pragma GCC unroll 4
  for (int t = 1; t < num_units; ++t) {
    const Vec<T, w> next = load<T, w>(f.Q[t] + f.code[t][n] * f.stride + c);
    sum += before * next;
    if (t + 1 < num_units) before += next;
  }
  return sum;
}

template <class T, int w, int U>
inline void predict_rows(const Rows<T>& f, int64_t first, int count) {
  constexpr int P = W<T> / w;
  V<T> products[w];
#pragma GCC unroll 16
  for (int i = 0; i < w; ++i) {
    products[i] =
        pieces<T, w>([&](int l) { return pairs<T, w, U>(f, first + std::min(i * P + l, count - 1), 0); });
    if constexpr (w == W<T>)
      for (int64_t c = W<T>; c < f.stride; c += W<T>)
        products[i] += pairs<T, w, U>(f, first + std::min(i, count - 1), c);
  }
  T eta[W<T>];
  store<T>(eta, sum_rows<T, w>(products) + splat<T>(f.w0));
  for (int t = 0; t < (U ? U : f.num_units); ++t)
    for (int l = 0; l < count; ++l) eta[l] += f.E[t][f.code[t][first + l]];
  std::copy(eta, eta + count, f.eta + first);
}

template <class T, int U, int w = W<T>>
void predict(const Rows<T>& f, int64_t lo, int64_t hi) {
  if (f.stride < w) {
    if constexpr (w * sizeof(T) > kPieceBytes) predict<T, U, w / 2>(f, lo, hi);
    return;
  }
  int64_t n = lo;
  for (; n + W<T> <= hi; n += W<T>) predict_rows<T, w, U>(f, n, W<T>);
  if (n < hi) predict_rows<T, w, U>(f, n, static_cast<int>(hi - n));
}

}  // namespace

template <class T>
void linear_predictor(const Rows<T>& f, int64_t lo, int64_t hi) {
  f.num_units == 2 ? predict<T, 2>(f, lo, hi) : predict<T, 0>(f, lo, hi);
}

template void linear_predictor<float>(const Rows<float>&, int64_t, int64_t);
template void linear_predictor<double>(const Rows<double>&, int64_t, int64_t);

}  // namespace bayesfm::ISA
