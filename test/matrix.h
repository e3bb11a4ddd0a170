// matrix.h: products in float64, by their definition.
//
// defines: Matrix, multiply, transposed
#pragma once
#include <stddef.h>
#include <vector>

typedef std::vector<double> Matrix;  // [m, n], row by row

// a [m, k] b [k, n]
inline Matrix multiply(const Matrix& a, const Matrix& b, int m, int k, int n) {
    Matrix c((size_t)m * n, 0);
    for (int i = 0; i < m; i++)
        for (int x = 0; x < k; x++)
            for (int j = 0; j < n; j++) c[(size_t)i * n + j] += a[(size_t)i * k + x] * b[(size_t)x * n + j];
    return c;
}

inline Matrix transposed(const Matrix& a, int m, int n) {
    Matrix t(a.size());
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) t[(size_t)j * m + i] = a[(size_t)i * n + j];
    return t;
}
