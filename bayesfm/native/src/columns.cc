// The columns of a general sparse matrix, one run of columns that share no row after the other.
//
// With Q the factors of everything in a row and u = Q - x v_j, h = x (1, u): the draw is that of a field's feature with weights
// omega x^2 and factors u. Q and the residual of its rows are brought up to date before the next run.
#include "columns.h"

#include <algorithm>

#include "few_rows.h"
#include "gram.h"
#include "lanes.h"

namespace bayesfm::ISA {
namespace {

template <class T>
struct RowsOfColumn {
  static constexpr bool kInMemory = false;
  T weight(int32_t p) const { return f.omega[f.row[p]] * f.value[p] * f.value[p]; }
  T weighted_r(int32_t p) const { return f.omega[f.row[p]] * f.value[p] * f.r[f.row[p]]; }
  template <int N>
  Vec<T, N> q(int32_t p, int64_t c = 0) const {
    return load<T, N>(f.Q + f.row[p] * f.stride + c) - splat<T, N>(f.value[p]) * load<T, N>(old + c);
  }
  const Columns<T>& f;
  const T* old;  // factors of the column
  const int32_t first, last;
};

// Q += x delta and r -= x (delta_0 + <u, delta>) for the entries of one column.
template <class T, int w>
void move_column(const Columns<T>& f, const RowsOfColumn<T>& rows, T delta_w, const T* delta) {
  for (int32_t p = rows.first; p < rows.last; ++p) {
    const T x = f.value[p];
    T* Q = f.Q + f.row[p] * f.stride;
    Vec<T, w> product{};
    for (int64_t c = 0; c < f.stride; c += w) {
      const Vec<T, w> d = load<T, w>(delta + c);
      product += rows.template q<w>(p, c) * d;
      store<T, w>(Q + c, load<T, w>(Q + c) + splat<T, w>(x) * d);
    }
    f.r[f.row[p]] -= x * (delta_w + sum<T, w>(product));
  }
}

template <class T, int w = W<T>>
void move_columns(const Columns<T>& f, const RowsOfColumn<T>& rows, T delta_w, const T* delta) {
  if (f.stride >= w)
    move_column<T, w>(f, rows, delta_w, delta);
  else if constexpr (w * sizeof(T) > kPieceBytes)
    move_columns<T, w / 2>(f, rows, delta_w, delta);
}

template <class T, int w = W<T>>
void summarize_rows(const Matrix<T>& f, int64_t lo, int64_t hi) {
  if (f.stride < w) {
    if constexpr (w * sizeof(T) > kPieceBytes) summarize_rows<T, w / 2>(f, lo, hi);
    return;
  }
  for (int64_t n = lo; n < hi; ++n) {
    T E = T(0);
    Vec<T, w> pairs{};
    for (int64_t c = 0; c < f.stride; c += w) {
      Vec<T, w> Q{}, squares{};
      for (int32_t e = f.ptr[n]; e < f.ptr[n + 1]; ++e) {
        const Vec<T, w> xv = splat<T, w>(f.value[e]) * load<T, w>(f.v + f.feature[e] * f.stride + c);
        Q += xv;
        squares += xv * xv;
        if (c == 0) E += f.value[e] * f.w[f.feature[e]];
      }
      store<T, w>(f.Q + n * f.stride + c, Q);
      pairs += Q * Q - squares;
    }
    f.E[n] = E + T(0.5) * sum<T, w>(pairs);
  }
}

}  // namespace

template <class T>
void update_columns(const Columns<T>& f, const int32_t* ends, int64_t lo, int64_t hi) {
  const int k = f.k;
  const Record record(k, f.stride, W<T>);
  const Aligned<T> records(static_cast<size_t>(record.size) * W<T>), block(block_size(record.ld, W<T>));
  const Aligned<T> old(static_cast<size_t>(record.ld) * W<T>), delta(record.ld + W<T>);
  Systems<T> of_sums(k + 1);
  FewRows<T> few(k + 1, f.stride);
  std::fill(old + 0, old + record.ld * W<T>, T(0));
  std::fill(delta + 0, delta + record.ld, T(0));
  for (int64_t first = lo; first < hi;) {
    while (*ends <= first) ++ends;
    const int count = static_cast<int>(std::min<int64_t>({W<T>, hi - first, *ends - first}));
    const auto rows = [&](int l) {
      return RowsOfColumn<T>{f, old + l * record.ld, f.ptr[first + l], f.ptr[first + l + 1]};
    };
    for (int i = 0; i <= k; ++i) {  // of the next columns: too many streams for the machine to see by itself
      __builtin_prefetch(f.theta + i * f.p + first + count, 1);
      __builtin_prefetch(f.noise + i * f.p + first + count);
    }
    int64_t most = 0;
    for (int l = 0; l < count; ++l) {
      for (int i = 0; i < k; ++i) old[l * record.ld + i] = f.theta[(i + 1) * f.p + first + l];
      most = std::max<int64_t>(most, f.ptr[first + l + 1] - f.ptr[first + l]);
    }
    const bool short_ones = FewRows<T>::holds(most, k + 1);
    Features<T>& s = short_ones ? static_cast<Features<T>&>(few) : of_sums;
    s.read_features(f.prior, f.noise, f.theta, f.p, first, count);
    if (short_ones) {
      few.draw(rows, count, most);
    } else {
      for (int l = 0; l < count; ++l) gram<T>(k, record.ld, rows(l), block, records + l * record.size);
      of_sums.read_sums(record, records, count);
      of_sums.draw();
    }
    s.write_features(f.theta, f.p, first, count);
    for (int l = 0; l < count; ++l) {
      for (int i = 0; i < k; ++i) delta[i] = s.change(i + 1, l);
      move_columns<T>(f, rows(l), s.change(0, l), delta);
    }
    first += count;
  }
}

template <class T>
void summarize(const Matrix<T>& f, int64_t lo, int64_t hi) {
  summarize_rows<T>(f, lo, hi);
}

template void update_columns<float>(const Columns<float>&, const int32_t*, int64_t, int64_t);
template void update_columns<double>(const Columns<double>&, const int32_t*, int64_t, int64_t);
template void summarize<float>(const Matrix<float>&, int64_t, int64_t);
template void summarize<double>(const Matrix<double>&, int64_t, int64_t);

}  // namespace bayesfm::ISA
