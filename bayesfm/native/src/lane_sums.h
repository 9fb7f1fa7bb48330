// Several sums over vectors of floats: each lane adds up a few dozen, which then are added up in double precision; one sum,
// the value, whose small differences count, in double precision from the start.
#pragma once

#include <algorithm>

#include "gram.h"
#include "real.h"

namespace bayesfm::ISA {

class LaneSums {
 public:
  static constexpr int kRun = 64;  // vectors between two calls of flush

  explicit LaneSums(int count) : count_(count), lanes_(count) { std::fill_n(+lanes_, count, Real{}); }

  void add(int i, Real x) { lanes_[i] += x; }

  void add_value(Real x) {
    typedef Vec<float, W<float> / 2> Half;
    constexpr Indices<W<float> / 2> half{};
    value_ += __builtin_convertvector((shuffles::part<0, Half>(x, half)), V<double>) +
              __builtin_convertvector((shuffles::part<W<float> / 2, Half>(x, half)), V<double>);
  }

  double value() const { return sum<double, W<double>>(value_); }

  // total(i, sum) is called with what sum i has gained.
  template <class F>
  void flush(const F& total) {
    for (int i = 0; i < count_; ++i) {
      double sum = 0;
      for (int l = 0; l < W<float>; ++l) sum += lanes_[i][l];
      lanes_[i] = Real{};
      total(i, sum);
    }
  }

 private:
  const int count_;
  V<double> value_{};
  const Aligned<Real> lanes_;
};

// row(first) for every vector of rows from lo to hi, flush() after every run of them.
template <class Row, class Flush>
inline void in_runs(int64_t lo, int64_t hi, const Row& row, const Flush& flush) {
  constexpr int64_t run = LaneSums::kRun * W<float>;
  for (int64_t start = lo; start < hi; start += run) {
    for (int64_t first = start; first < std::min(hi, start + run); first += W<float>) row(first);
    flush();
  }
}

}  // namespace bayesfm::ISA
