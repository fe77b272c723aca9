/* Loops over the pixels of a channels-last image, for fused_blocks.c.
 *
 * Channels are padded to whole vectors; an image is padded with zeros as its depthwise convolution demands.
 */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

/* The target's vector registers: their bytes, their number and their name. */
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define VECTOR_REGISTERS 32
#define INSTRUCTION_SET "AVX-512"
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define VECTOR_REGISTERS 16
#if defined(__AVX2__)
#define INSTRUCTION_SET "AVX2"
#else
#define INSTRUCTION_SET "AVX"
#endif
#elif defined(__aarch64__)
#define VECTOR_BYTES 16
#define VECTOR_REGISTERS 32
#define INSTRUCTION_SET "NEON"
#else
#define VECTOR_BYTES 16
#define VECTOR_REGISTERS 16
#if defined(__SSE2__)
#define INSTRUCTION_SET "SSE"
#else
#define INSTRUCTION_SET "16-byte vectors"
#endif
#endif

#define LARGEST_KERNEL 7
#define GROUPS 16 /* of images with sums of their own: the number of threads changes no bit */
#define TILE_PIXELS 64  /* pixels worked on at a time, so that their channels stay in the first cache */
/* Rows of a tile of products, two vectors wide: as many as leave registers for the operands. */
#ifndef TILE_ROWS
#define TILE_ROWS (VECTOR_REGISTERS == 32 ? 8 : 6)
#endif
#define WORK_OF_A_THREAD 500000
#define LANES ((int64_t)(VECTOR_BYTES / sizeof(REAL)))
#define INLINE static inline __attribute__((always_inline))

typedef REAL vector __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL loose_vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL))));

/* Some channels of channels-last images. Several in a row, up to one without channels, are all channels. */
typedef struct {
  int64_t channels, step; /* values from a pixel to the next */
  REAL *values;
} part;

typedef struct {
  int64_t batch, height, width, in_channels, channels;
  int64_t kernel, stride, dilation; /* kernel 0: no depthwise convolution; stride 1 */
  int64_t threads;
  double eps;
  const REAL *depthwise, *pointwise, *weight, *bias; /* of the convolutions and the norm */
  REAL *y, *mean, *variance;                         /* the norm's input and its statistics */
  const REAL *factors;                               /* of every image's output, or NULL */
  const REAL *addend;                                /* of the output, or NULL */
  REAL *grad_output;                              /* gradient of the output */
  REAL *grad_depthwise, *grad_pointwise, *grad_weight, *grad_bias;
} block;

/* Sizes that follow from a block's. */
typedef struct {
  int64_t padding, padded_width, padded_height, out_height, out_width, pixels;
  int64_t in_vectors, vectors, in_padded, padded; /* vectors of channels; channels of whole vectors */
  int64_t rows;                                 /* of the output, worked on at a time */
} geometry;

/* What follows from a block's sizes. */
static geometry geometry_of(const block *f) {
  geometry l;
  l.padding = f->kernel ? f->dilation * (f->kernel - 1) / 2 : 0;
  l.padded_height = f->height + 2 * l.padding;
  l.padded_width = f->width + 2 * l.padding;
  l.out_height = (f->height + f->stride - 1) / f->stride;
  l.out_width = (f->width + f->stride - 1) / f->stride;
  l.pixels = l.out_height * l.out_width;
  l.in_vectors = (f->in_channels + LANES - 1) / LANES;
  l.vectors = (f->channels + LANES - 1) / LANES;
  l.in_padded = l.in_vectors * LANES;
  l.padded = l.vectors * LANES;
  l.rows = TILE_PIXELS / l.out_width < 1 ? 1 : TILE_PIXELS / l.out_width;
  return l;
}

INLINE int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }

/* Threads for an amount of work, in multiply-adds: to wake one takes as long as some of them. */
INLINE int threads_for(int64_t most, int64_t work) { return (int)min_of(most, 1 + work / WORK_OF_A_THREAD); }

/* Multiply-adds of a block's convolutions. */
INLINE int64_t work_of(const block *f, const geometry *l) {
  return f->batch * l->pixels * f->in_channels * (f->kernel * f->kernel + f->channels);
}

/* Passes over memory of a block's norm, as the multiply-adds that take as long. */
INLINE int64_t norm_work_of(const block *f, const geometry *l) {
  return 8 * f->batch * l->pixels * f->channels;
}

/* ---- memory of a thread, kept between calls ---- */

static _Thread_local char *memory = NULL;
static _Thread_local size_t memory_size = 0;

/* This thread's memory for `count` values, whatever it held before. */
static REAL *scratch(size_t count) {
  size_t bytes = (count * sizeof(REAL) + 4095) / 4096 * 4096;
  if (bytes > memory_size) {
    free(memory);
    memory = aligned_alloc(4096, bytes);
    memory_size = memory ? bytes : 0;
    if (!memory) abort();
  }
  return (REAL *)memory;
}

/* A count rounded up to whole cache lines. */
INLINE size_t in_whole_lines(size_t count) { return (count + 63) / 64 * 64; }

/* Memory for `count` values, to be freed. */
static REAL *allocate(int64_t count) {
  REAL *values = aligned_alloc(64, in_whole_lines((size_t)count + 1) * sizeof(REAL));
  if (!values) abort();
  return values;
}

/* Values of a padded image. */
static size_t image_size_of(const geometry *l) {
  return in_whole_lines((size_t)(l->padded_height * l->padded_width * l->in_padded));
}

/* `count` zeros, to be freed. */
static REAL *zeros(int64_t count) { return memset(allocate(count), 0, (size_t)count * sizeof(REAL)); }

/* `count` sums in double, zero, to be freed. */
static double *zero_sums(int64_t count) {
  double *values = calloc((size_t)count, sizeof(double));
  if (!values) abort();
  return values;
}

/* ---- vectors ---- */

/* Unaligned load and store. */
INLINE vector load(const REAL *from) { return *(const loose_vector *)from; }
INLINE void store(REAL *to, vector v) { *(loose_vector *)to = v; }

#if defined(__AVX2__) && !defined(__AVX512F__)
/* The first `count` lanes all ones, the others zero. */
INLINE __m256i first_lanes(int64_t count) {
  static const int32_t ones[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256((const __m256i *)(ones + 8 - count * (int64_t)sizeof(REAL) / 4));
}
#endif

/* The first `count` values of a vector, the others zero. */
INLINE vector load_first(const REAL *from, int64_t count) {
#if defined(__AVX512F__)
  if (sizeof(REAL) == 4) return (vector)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
  return (vector)_mm512_maskz_loadu_pd((__mmask8)((1u << count) - 1), from);
#elif defined(__AVX2__)
  if (sizeof(REAL) == 4) return (vector)_mm256_maskload_ps((const float *)from, first_lanes(count));
  return (vector)_mm256_maskload_pd((const double *)from, first_lanes(count));
#else
  vector v = {0};
  for (int64_t k = 0; k < LANES - 1; k++)
    if (k < count) v[k] = from[k];
  return v;
#endif
}

/* Store the first `count` values of a vector. */
INLINE void store_first(REAL *to, int64_t count, vector v) {
#if defined(__AVX512F__)
  if (sizeof(REAL) == 4)
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)v);
  else
    _mm512_mask_storeu_pd(to, (__mmask8)((1u << count) - 1), (__m512d)v);
#elif defined(__AVX2__)
  if (sizeof(REAL) == 4)
    _mm256_maskstore_ps((float *)to, first_lanes(count), (__m256)v);
  else
    _mm256_maskstore_pd((double *)to, first_lanes(count), (__m256d)v);
#else
  for (int64_t k = 0; k < LANES - 1; k++)
    if (k < count) to[k] = v[k];
#endif
}

/* Vector `block` of a pixel's channels, zero behind the last. */
INLINE vector load_channels(const REAL *from, int64_t block, int64_t channels) {
  int64_t left = channels - block * LANES;
  return left >= LANES ? load(from + block * LANES) : load_first(from + block * LANES, left);
}

/* Store vector `block` of a pixel's channels, and nothing behind the last. */
INLINE void store_channels(REAL *to, int64_t block, int64_t channels, vector v) {
  int64_t left = channels - block * LANES;
  if (left >= LANES)
    store(to + block * LANES, v);
  else
    store_first(to + block * LANES, left, v);
}

/* v where `seen` is above zero or NaN, else zero: ReLU, and its backward pass. */
INLINE vector relu_mask(vector v, vector seen) {
  __typeof__(seen <= 0) is_kept = ~(seen <= 0);
  return (vector)(is_kept & (__typeof__(is_kept))v);
}
INLINE vector relu(vector v) { return relu_mask(v, v); }

/* Store a vector at channel `at` of a pixel with `padded` channels, without touching the next pixel. */
INLINE void store_inside(REAL *pixel, int64_t at, int64_t padded, vector v) {
  if (at + LANES <= padded)
    store(pixel + at, v);
  else
    store_first(pixel + at, padded - at, v);
}

/* ---- weights in whole vectors ---- */

/* [channels, 1, kernel, kernel] as [kernel * kernel][in_padded], reversed or not. */
static void pack_depthwise(const block *f, const geometry *l, int turned, REAL *to) {
  int64_t taps = f->kernel * f->kernel;
  for (int64_t c = 0; c < f->in_channels; c++)
    for (int64_t tap = 0; tap < taps; tap++)
      to[(turned ? taps - 1 - tap : tap) * l->in_padded + c] = f->depthwise[c * taps + tap];
}

/* [channels, in_channels] as [in_channels][padded]. */
static void pack_forward(const block *f, const geometry *l, REAL *to) {
  for (int64_t d = 0; d < f->channels; d++)
    for (int64_t c = 0; c < f->in_channels; c++) to[c * l->padded + d] = f->pointwise[d * f->in_channels + c];
}

/* [channels, in_channels] as [channels][in_padded]. */
static void pack_backward(const block *f, const geometry *l, REAL *to) {
  for (int64_t d = 0; d < f->channels; d++)
    memcpy(to + d * l->in_padded, f->pointwise + d * f->in_channels, (size_t)f->in_channels * sizeof(REAL));
}

/* ---- steps of a block on a tile of rows ---- */

/* ReLU of `rows` rows of (scaled and shifted) images from pixel `first` on; rows of the result are `to_row`
 * values apart. */
static void affine_relu(const block *f, const geometry *l, int64_t rows, const part *x, int64_t first,
                    const REAL *scale, const REAL *shift, REAL *to, int64_t to_row) {
  for (int64_t offset = 0; x->channels; offset += x->channels, x++)
    for (int64_t b = 0; b * LANES < x->channels; b++) {
      vector factor = {0}, constant = {0};
      if (scale) factor = load_channels(scale + offset, b, x->channels);
      if (scale) constant = load_channels(shift + offset, b, x->channels);
      for (int64_t h = 0; h < rows; h++) {
        const REAL *row = x->values + (first + h * f->width) * x->step;
        for (int64_t w = 0; w < f->width; w++) {
          vector v = load_channels(row + w * x->step, b, x->channels);
          store_inside(to + h * to_row + w * l->in_padded, offset + b * LANES, l->in_padded,
                       relu(scale ? v * factor + constant : v));
        }
      }
    }
}

/* Depthwise convolution of `rows` x `width` pixels, from the upper left corner of a padded image on. */
INLINE void depthwise_any(int64_t kernel, int64_t stride, int64_t dilation, const geometry *l, int64_t rows,
                         int64_t width, const REAL *from, const REAL *weight, REAL *to) {
  const int64_t channels = l->in_padded;
  for (int64_t h = 0; h < rows; h++)
    for (int64_t b = 0; b < l->in_vectors; b++) {
      const REAL *corner = from + h * stride * l->padded_width * channels + b * LANES;
      REAL *out = to + h * width * channels + b * LANES;
      int64_t w = 0;
      for (; w + 8 <= width; w += 8) {
        vector sums[8] = {{0}};
        for (int64_t i = 0; i < kernel; i++)
          for (int64_t j = 0; j < kernel; j++) {
            vector tap = load(weight + (i * kernel + j) * channels + b * LANES);
            const REAL *at = corner + (i * dilation * l->padded_width + w * stride + j * dilation) * channels;
            for (int64_t p = 0; p < 8; p++) sums[p] += load(at + p * stride * channels) * tap;
          }
        for (int64_t p = 0; p < 8; p++) store(out + (w + p) * channels, sums[p]);
      }
      for (; w < width; w++) {
        vector sum = {0};
        for (int64_t i = 0; i < kernel; i++)
          for (int64_t j = 0; j < kernel; j++)
            sum += load(corner + (i * dilation * l->padded_width + w * stride + j * dilation) * channels) *
                   load(weight + (i * kernel + j) * channels + b * LANES);
        store(out + w * channels, sum);
      }
    }
}

/* The same with stride 1 for `columns` outputs of a row: each input is loaded once for all its products. */
INLINE void depthwise_tile(int64_t kernel, int64_t dilation, int64_t columns, const REAL *from,
                           int64_t row_step, int64_t channels, const REAL *weight, REAL *to) {
  vector sums[8] = {{0}};
  for (int64_t i = 0; i < kernel; i++) {
    vector taps[LARGEST_KERNEL];
#pragma GCC unroll 7
    for (int64_t j = 0; j < kernel; j++) taps[j] = load(weight + (i * kernel + j) * channels);
#pragma GCC unroll 20
    for (int64_t w = 0; w < columns + (kernel - 1) * dilation; w++) {
      const vector v = load(from + i * dilation * row_step + w * channels);
#pragma GCC unroll 7
      for (int64_t j = 0; j < kernel; j++)
        if (w >= j * dilation && w < j * dilation + columns) sums[w - j * dilation] += v * taps[j];
    }
  }
#pragma GCC unroll 8
  for (int64_t w = 0; w < columns; w++) store(to + w * channels, sums[w]);
}

/* The same for whole rows. */
INLINE void depthwise_rows(int64_t kernel, int64_t dilation, const geometry *l, int64_t rows, int64_t width,
                           const REAL *from, const REAL *weight, REAL *to) {
  const int64_t channels = l->in_padded, row_step = l->padded_width * channels;
  for (int64_t b = 0; b < l->in_vectors; b++)
    for (int64_t h = 0; h < rows; h++) {
      const REAL *at = from + h * row_step + b * LANES, *taps = weight + b * LANES;
      REAL *out = to + h * width * channels + b * LANES;
      int64_t w = 0;
      for (; w + 8 <= width; w += 8)
        depthwise_tile(kernel, dilation, 8, at + w * channels, row_step, channels, taps, out + w * channels);
      for (; w < width; w++)
        depthwise_tile(kernel, dilation, 1, at + w * channels, row_step, channels, taps, out + w * channels);
    }
}

/* Depthwise convolution: specialised for the kernels and dilations of published cells. */
static void depthwise(int64_t kernel, int64_t stride, int64_t dilation, const geometry *l, int64_t rows,
                      int64_t width, const REAL *from, const REAL *weight, REAL *to) {
  if (kernel == 3 && stride == 1 && dilation == 1)
    depthwise_rows(3, 1, l, rows, width, from, weight, to);
  else if (kernel == 3 && stride == 1 && dilation == 2)
    depthwise_rows(3, 2, l, rows, width, from, weight, to);
  else if (kernel == 5 && stride == 1 && dilation == 1)
    depthwise_rows(5, 1, l, rows, width, from, weight, to);
  else if (kernel == 5 && stride == 1 && dilation == 2)
    depthwise_rows(5, 2, l, rows, width, from, weight, to);
  else
    depthwise_any(kernel, stride, dilation, l, rows, width, from, weight, to);
}

/* Gradient of the depthwise weights, added to `to`: products of the padded image and the gradient of `rows`
 * rows of results, which lies dilated by the stride, like the image. */
INLINE void depthwise_grad_any(int64_t kernel, int64_t at_once, const block *f, const geometry *l,
                                 int64_t rows, const REAL *image, const REAL *gradient, REAL *to) {
  const int64_t channels = l->in_padded, step = f->stride * channels, row_step = l->padded_width * step;
  for (int64_t b = 0; b < l->in_vectors; b++)
    for (int64_t i = 0; i < kernel; i++) {
      vector sums[4][LARGEST_KERNEL] = {{{0}}};
      for (int64_t h = 0; h < rows; h++) {
        const REAL *pixels = image + h * row_step + i * f->dilation * l->padded_width * channels + b * LANES;
        const REAL *g = gradient + h * row_step + b * LANES;
        int64_t w = 0;
        for (; w + at_once <= l->out_width; w += at_once)
          for (int64_t p = 0; p < at_once; p++)
            for (int64_t j = 0; j < kernel; j++)
              sums[p][j] +=
                  load(pixels + (w + p) * step + j * f->dilation * channels) * load(g + (w + p) * step);
        for (; w < l->out_width; w++)
          for (int64_t j = 0; j < kernel; j++)
            sums[0][j] += load(pixels + w * step + j * f->dilation * channels) * load(g + w * step);
      }
      for (int64_t p = 0; p < at_once; p++)
        for (int64_t j = 0; j < kernel; j++) {
          REAL *at = to + (i * kernel + j) * channels + b * LANES;
          store(at, load(at) + sums[p][j]);
        }
    }
}

/* The same for 3x3 weights and stride 1: a column of the image serves three taps a row. Beside a row of
 * `gradient` lie zeros, as it is padded like the image. */
INLINE void depthwise_grad_3x3(int64_t dilation, const block *f, const geometry *l, int64_t rows,
                               const REAL *image, const REAL *gradient, REAL *to) {
  const int64_t channels = l->in_padded, row_step = l->padded_width * channels;
  for (int64_t b = 0; b < l->in_vectors; b++) {
    vector sums[9] = {{0}};
    for (int64_t h = 0; h < rows; h++) {
      const REAL *pixels = image + h * row_step + b * LANES, *g = gradient + h * row_step + b * LANES;
      for (int64_t w = 0; w < f->width + 2 * dilation; w++) {
        vector right[3];
#pragma GCC unroll 3
        for (int64_t j = 0; j < 3; j++) right[j] = load(g + (w - j * dilation) * channels);
#pragma GCC unroll 3
        for (int64_t i = 0; i < 3; i++) {
          const vector v = load(pixels + i * dilation * row_step + w * channels);
#pragma GCC unroll 3
          for (int64_t j = 0; j < 3; j++) sums[3 * i + j] += v * right[j];
        }
      }
    }
#pragma GCC unroll 9
    for (int64_t tap = 0; tap < 9; tap++) {
      REAL *at = to + tap * channels + b * LANES;
      store(at, load(at) + sums[tap]);
    }
  }
}

/* Gradient of the depthwise weights, specialised likewise. */
static void depthwise_grad(const block *f, const geometry *l, int64_t rows, const REAL *image,
                              const REAL *gradient, REAL *to) {
  if (f->kernel == 3 && f->stride == 1 && f->dilation == 1)
    depthwise_grad_3x3(1, f, l, rows, image, gradient, to);
  else if (f->kernel == 3 && f->stride == 1 && f->dilation == 2)
    depthwise_grad_3x3(2, f, l, rows, image, gradient, to);
  else if (f->kernel == 3)
    depthwise_grad_any(3, 4, f, l, rows, image, gradient, to);
  else if (f->kernel == 5)
    depthwise_grad_any(5, 2, f, l, rows, image, gradient, to);
  else
    depthwise_grad_any(f->kernel, 1, f, l, rows, image, gradient, to);
}

/* Products of `pixels` rows with two vectors of columns, or one, of a matrix [inner][columns]. */
INLINE void matmul_tile(int64_t pixels, int64_t vectors, int64_t inner, const REAL *from, int64_t from_step,
                        const REAL *matrix, int64_t matrix_step, REAL *to, int64_t to_step) {
  vector sums[TILE_ROWS][2] = {{{0}}};
  for (int64_t c = 0; c < inner; c++) {
    vector row[2];
    for (int64_t k = 0; k < vectors; k++) row[k] = load(matrix + c * matrix_step + k * LANES);
    for (int64_t p = 0; p < pixels; p++)
      for (int64_t k = 0; k < vectors; k++) sums[p][k] += row[k] * from[p * from_step + c];
  }
  for (int64_t p = 0; p < pixels; p++)
    for (int64_t k = 0; k < vectors; k++) store(to + p * to_step + k * LANES, sums[p][k]);
}

/* The same for all columns. */
INLINE void matmul_rows(int64_t pixels, int64_t vectors, int64_t inner, const REAL *from, int64_t from_step,
                        const REAL *matrix, REAL *to, int64_t to_step) {
  const int64_t step = vectors * LANES;
  int64_t b = 0;
  for (; b + 2 <= vectors; b += 2)
    matmul_tile(pixels, 2, inner, from, from_step, matrix + b * LANES, step, to + b * LANES, to_step);
  if (b < vectors)
    matmul_tile(pixels, 1, inner, from, from_step, matrix + b * LANES, step, to + b * LANES, to_step);
}

/* The same for any number of pixels: the 1x1 convolution. */
static void matmul(int64_t pixels, int64_t vectors, int64_t inner, const REAL *from, int64_t from_step,
                   const REAL *matrix, REAL *to, int64_t to_step) {
  int64_t p = 0;
  for (; p + TILE_ROWS <= pixels; p += TILE_ROWS)
    matmul_rows(TILE_ROWS, vectors, inner, from + p * from_step, from_step, matrix, to + p * to_step, to_step);
  for (; p + 4 <= pixels; p += 4)
    matmul_rows(4, vectors, inner, from + p * from_step, from_step, matrix, to + p * to_step, to_step);
  for (; p < pixels; p++)
    matmul_rows(1, vectors, inner, from + p * from_step, from_step, matrix, to + p * to_step, to_step);
}

/* Sums over pixels of the products of `rows` channels of `a` with two vectors of channels of `b`, or one,
 * added to `to`. */
INLINE void outer_tile(int64_t rows, int64_t vectors, int64_t pixels, const REAL *a, int64_t a_step,
                       const REAL *b, int64_t b_step, REAL *to) {
  vector sums[TILE_ROWS][2];
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < vectors; k++) sums[r][k] = load(to + r * b_step + k * LANES);
  for (int64_t p = 0; p < pixels; p++) {
    vector right[2];
    for (int64_t k = 0; k < vectors; k++) right[k] = load(b + p * b_step + k * LANES);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t k = 0; k < vectors; k++) sums[r][k] += right[k] * a[p * a_step + r];
  }
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < vectors; k++) store(to + r * b_step + k * LANES, sums[r][k]);
}

/* The same for all channels of `b`. */
INLINE void outer_rows(int64_t rows, int64_t vectors, int64_t pixels, const REAL *a, int64_t a_step,
                       const REAL *b, REAL *to) {
  const int64_t step = vectors * LANES;
  int64_t k = 0;
  for (; k + 2 <= vectors; k += 2)
    outer_tile(rows, 2, pixels, a, a_step, b + k * LANES, step, to + k * LANES);
  if (k < vectors) outer_tile(rows, 1, pixels, a, a_step, b + k * LANES, step, to + k * LANES);
}

/* The same for any number of channels of `a`: the gradient of the 1x1 convolution's weights. */
static void outer(int64_t pixels, int64_t rows, const REAL *a, int64_t a_step, int64_t vectors, const REAL *b,
                  REAL *to) {
  const int64_t step = vectors * LANES;
  int64_t r = 0;
  for (; r + TILE_ROWS <= rows; r += TILE_ROWS)
    outer_rows(TILE_ROWS, vectors, pixels, a + r, a_step, b, to + r * step);
  for (; r + 4 <= rows; r += 4) outer_rows(4, vectors, pixels, a + r, a_step, b, to + r * step);
  for (; r < rows; r++) outer_rows(1, vectors, pixels, a + r, a_step, b, to + r * step);
}

/* Store a tile of results, and update mean and sum of squares [2][padded] of the `before` pixels before it. */
static void store_results(const block *f, const geometry *l, int64_t pixels, int64_t before, const REAL *result,
                         REAL *y, REAL *moments) {
  const REAL share = (REAL)pixels / (REAL)(before + pixels);
  for (int64_t b = 0; b < l->vectors; b++) {
    vector sum = {0}, squares = {0};
    for (int64_t p = 0; p < pixels; p++) {
      vector v = load(result + p * l->padded + b * LANES);
      sum += v;
      store_channels(y + p * f->channels, b, f->channels, v);
    }
    vector centre = sum / (REAL)pixels;
    for (int64_t p = 0; p < pixels; p++) {
      vector v = load(result + p * l->padded + b * LANES) - centre;
      squares += v * v;
    }
    REAL *mean = moments + b * LANES, *apart = mean + l->padded;
    vector difference = centre - load(mean);
    store(mean, load(mean) + difference * share);
    store(apart, load(apart) + squares + difference * difference * (share * (REAL)before));
  }
}

/* ReLU of the norm of `rows` rows of results, into the inside of the next block's image. */
static void store_next_input(const block *f, const geometry *l, int64_t rows, const REAL *result,
                             const REAL *affine, REAL *to, int64_t to_row) {
  for (int64_t b = 0; b < l->vectors; b++) {
    const vector scale = load_channels(affine, b, f->channels);
    const vector shift = load_channels(affine + f->channels, b, f->channels);
    for (int64_t h = 0; h < rows; h++)
      for (int64_t w = 0; w < l->out_width; w++)
        store(to + h * to_row + w * l->padded + b * LANES,
              relu(load(result + (h * l->out_width + w) * l->padded + b * LANES) * scale + shift));
  }
}

/* Store the norm of a tile of results, from pixel `first` on, plus the addend. */
static void store_output(const block *f, const geometry *l, int64_t pixels, const REAL *result,
                        const REAL *affine, int64_t first, const part *to) {
  for (int64_t offset = 0; to->channels; offset += to->channels, to++)
    for (int64_t b = 0; b * LANES < to->channels; b++) {
      const vector scale = load_channels(affine + offset, b, to->channels);
      const vector shift = load_channels(affine + f->channels + offset, b, to->channels);
      for (int64_t p = 0; p < pixels; p++) {
        vector v = load(result + p * l->padded + offset + b * LANES) * scale + shift;
        if (f->addend) v += load_channels(f->addend + (first + p) * f->channels + offset, b, to->channels);
        store_channels(to->values + (first + p) * to->step, b, to->channels, v);
      }
    }
}

/* Gradient of `pixels` results of a block, from pixel `first` on, from that of the norm behind it;
 * coefficients [4][padded]. */
static void norm_backward(const block *f, const geometry *l, int64_t pixels, const part *g, int64_t first,
                         REAL factor, const REAL *coefficients, REAL *to) {
  for (int64_t offset = 0; g->channels; offset += g->channels, g++)
    for (int64_t b = 0; b * LANES < g->channels; b++) {
      const REAL *own = coefficients + offset;
      vector scale = load_channels(own, b, g->channels) * factor;
      vector constant = load_channels(own + l->padded, b, g->channels);
      vector slope = load_channels(own + 2 * l->padded, b, g->channels);
      vector centre = load_channels(own + 3 * l->padded, b, g->channels);
      for (int64_t p = 0; p < pixels; p++) {
        vector y = load_channels(f->y + (first + p) * f->channels + offset, b, g->channels);
        store_inside(to + p * l->padded, offset + b * LANES, l->padded,
                     load_channels(g->values + (first + p) * g->step, b, g->channels) * scale +
                         (y - centre) * slope + constant);
      }
    }
}

/* Gradient of `rows` rows of a block's input, from pixel `first` on, from that of its ReLU; with a norm
 * before it, whose input `x` is, sums [2][in_padded]. */
static void relu_backward(const block *f, const geometry *l, int64_t rows, const REAL *g, const REAL *rectified,
                         int64_t rectified_row, int64_t first, const REAL *x, const REAL *mean,
                         const part *to, REAL *sums) {
  for (int64_t offset = 0; to->channels; offset += to->channels, to++)
    for (int64_t b = 0; b * LANES < to->channels; b++) {
      const int64_t at = offset + b * LANES;
      vector sum = {0}, products = {0}, centre = {0};
      if (mean) centre = load_channels(mean, b, f->in_channels);
      for (int64_t h = 0; h < rows; h++)
        for (int64_t w = 0; w < f->width; w++) {
          int64_t p = h * f->width + w;
          vector v = relu_mask(load(g + p * l->in_padded + at),
                                    load(rectified + h * rectified_row + w * l->in_padded + at));
          store_channels(to->values + (first + p) * to->step, b, to->channels, v);
          if (mean) {
            sum += v;
            products += v * (load_channels(x + (first + p) * f->in_channels, b, f->in_channels) - centre);
          }
        }
      if (mean) {
        store(sums + at, load(sums + at) + sum);
        store(sums + l->in_padded + at, load(sums + l->in_padded + at) + products);
      }
    }
}
