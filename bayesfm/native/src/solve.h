// Cholesky factorisation and a Gaussian draw from the canonical form, for one system or one per vector lane.
#pragma once

#include <cmath>
#include <limits>

#include "vector.h"

namespace bayesfm::ISA {

constexpr int at(int i, int j) { return i * (i + 1) / 2 + j; }  // entry (i, j), j <= i, of a packed triangle

inline float inverse_sqrt(float d) { return 1.0f / std::sqrt(d); }
inline double inverse_sqrt(double d) { return 1.0 / std::sqrt(d); }
template <class T>
inline T inverse_sqrt(T d) {
  for (unsigned l = 0; l < sizeof(T) / sizeof(d[0]); ++l) d[l] = inverse_sqrt(d[l]);
  return d;
}

// Systems of K equations, one per lane of S (a vector, or one number): A holds the triangle of P and becomes its Cholesky factor
// L (1 / L_jj on the diagonal), b the right-hand side, solved forward; the first n columns of both.
//
// No pivot of Lambda + G, G positive semidefinite, is below its prior precision; nor is one below the rounding of the
// diagonal to be believed.
template <class T, class S>
void eliminate(int K, int n, S* A, S* b, const S* precision) {
  const T rounding = 4 * std::numeric_limits<T>::epsilon();
  for (int j = 0; j < n; ++j) {
    S d = A[at(j, j)], b_j = b[j];
    const S by_rounding = d * rounding;
    const S floor = by_rounding > precision[j] ? by_rounding : precision[j];
    for (int k = 0; k < j; ++k) {
      const S l = A[at(j, k)];
      d -= l * l;
      b_j -= l * b[k];
    }
    d = d > floor ? d : floor;
    const S inverse = inverse_sqrt(d);
    A[at(j, j)] = inverse;
    b[j] = b_j * inverse;
    int i = j + 1;
    for (; i + 3 < K; i += 4) {  // four rows share the loads of row j
      S s0 = A[at(i, j)], s1 = A[at(i + 1, j)], s2 = A[at(i + 2, j)], s3 = A[at(i + 3, j)];
      for (int k = 0; k < j; ++k) {
        const S l = A[at(j, k)];
        s0 -= A[at(i, k)] * l;
        s1 -= A[at(i + 1, k)] * l;
        s2 -= A[at(i + 2, k)] * l;
        s3 -= A[at(i + 3, k)] * l;
      }
      A[at(i, j)] = s0 * inverse;
      A[at(i + 1, j)] = s1 * inverse;
      A[at(i + 2, j)] = s2 * inverse;
      A[at(i + 3, j)] = s3 * inverse;
    }
    for (; i < K; ++i) {
      S s = A[at(i, j)];
      for (int k = 0; k < j; ++k) s -= A[at(i, k)] * A[at(j, k)];
      A[at(i, j)] = s * inverse;
    }
  }
}

// x_{n-1}, ..., x_0 of L' x = b + noise, those after them being known.
template <class S>
void substitute(int K, int n, const S* A, const S* b, const S* noise, S* x) {
  for (int j = n - 1; j >= 0; --j) {
    S s = b[j] + noise[j];
    for (int i = j + 1; i < K; ++i) s -= A[at(i, j)] * x[i];
    x[j] = s * A[at(j, j)];
  }
}

// x ~ N(P^-1 b, P^-1) from standard normals.
template <class T, class S>
void solve(int K, S* A, S* b, const S* noise, const S* precision, S* x) {
  eliminate<T, S>(K, K, A, b, precision);
  substitute<S>(K, K, A, b, noise, x);
}

}  // namespace bayesfm::ISA
