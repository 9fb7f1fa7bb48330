// Mean and scatter of each group of features, in two passes, so that nothing cancels; summed in double precision.
#include "moments.h"

#include <algorithm>

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

}  // namespace

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

template void group_moments<float>(const float*, const int32_t*, int64_t, int64_t, float*, float*);
template void group_moments<double>(const double*, const int32_t*, int64_t, int64_t, double*, double*);

}  // namespace bayesfm::ISA
