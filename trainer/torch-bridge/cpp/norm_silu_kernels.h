// The arithmetic of norm_silu.cpp on plain memory: rows of channels, one row per pixel. No libtorch here, so that
// the unit can be compiled for several instruction sets without their code getting into shared inline functions.
//
// Sums are of at most one chunk of rows; the caller adds chunks up in their order, so that no result depends on
// how many threads there are.
#pragma once

#include <cstdint>

namespace torch_bridge::kernels {

// The 16 high bits of a float.
enum class bfloat16 : std::uint16_t {};

// Adds x - shift and its square, over the rows, to one number per channel each.
void moments(const float* x, std::int64_t rows, std::int64_t channels, const float* shift, float* sum, float* square);
void moments(
    const bfloat16* x, std::int64_t rows, std::int64_t channels, const float* shift, float* sum, float* square);

// Per channel: y = (x - mean) * scale + bias.
struct Affine {
  const float* mean;
  const float* scale;
  const float* bias;
};

// out = y * sigmoid(y).
void forward(const float* x, std::int64_t rows, std::int64_t channels, Affine affine, float* out);
void forward(const bfloat16* x, std::int64_t rows, std::int64_t channels, Affine affine, bfloat16* out);

// From the gradient of out, whose rows begin `stride` elements apart, that of y; adds it, and its product with
// x - mean, to one number per channel each.
void backward_y(
    const float* x, const float* grad_out, std::int64_t stride, std::int64_t rows, std::int64_t channels,
    Affine affine, float* grad_y, float* sum, float* product);
void backward_y(
    const bfloat16* x, const bfloat16* grad_out, std::int64_t stride, std::int64_t rows, std::int64_t channels,
    Affine affine, bfloat16* grad_y, float* sum, float* product);

// Per channel: grad_x = grad_y * scale + (x - mean) * slope + offset.
struct Backward {
  const float* mean;
  const float* scale;
  const float* slope;
  const float* offset;
};

// Turns the gradient of y into that of x, in place.
void backward_x(const float* x, std::int64_t rows, std::int64_t channels, Backward backward, float* grad);
void backward_x(const bfloat16* x, std::int64_t rows, std::int64_t channels, Backward backward, bfloat16* grad);

// The sum of squares.
double sum_of_squares(const float* values, std::int64_t count);

} // namespace torch_bridge::kernels
