/* Fused separable blocks on channels-last images: per-channel scale and shift, ReLU, depthwise convolution, 1x1
 * convolution and the sums of the batch norm behind it. One image at a time, so that everything between a
 * block's input and output stays in a core's cache; the backward pass recomputes it. Max pooling (pooling.h)
 * is part of the same library.
 *
 * Compiled once for float and once for double (-DREAL=float). Channels are padded to whole vectors inside.
 */

#include "block_loops.h"
#include "pooling.h"

/* ---- a block ---- */

/* Scale and shift of a norm by channel, [2][channels]; to be freed. */
static REAL *affine_of(const block *f) {
  REAL *affine = zeros(2 * f->channels);
  for (int64_t c = 0; c < f->channels; c++) {
    const double scale = f->weight[c] / sqrt(f->variance[c] + f->eps);
    affine[c] = (REAL)scale;
    affine[f->channels + c] = (REAL)(f->bias[c] - f->mean[c] * scale);
  }
  return affine;
}

/* y [batch, pixels, channels] of a block; its mean and (biased) variance by channel. */
static void forward(const block *f, const part *x, const REAL *scale, const REAL *shift) {
  const geometry l = geometry_of(f);
  REAL *taps = zeros(f->kernel * f->kernel * l.in_padded), *matrix = zeros(f->in_channels * l.padded);
  double *means = zero_sums(2 * f->batch * f->channels), *squares = means + f->batch * f->channels;
  pack_depthwise(f, &l, 0, taps);
  pack_forward(f, &l, matrix);

#pragma omp parallel num_threads(threads_for(f->threads, work_of(f, &l)))
  {
    const size_t image_size = f->kernel ? image_size_of(&l) : 0;
    const size_t depthwise_out_size = in_whole_lines((size_t)(l.rows * l.out_width * l.in_padded));
    const size_t result_size = in_whole_lines((size_t)(l.rows * l.out_width * l.padded));
    REAL *image = scratch(image_size + depthwise_out_size + result_size + (size_t)(2 * l.padded));
    REAL *depthwise_out = image + image_size, *result = depthwise_out + depthwise_out_size;
    REAL *moments = result + result_size;
    memset(image, 0, image_size * sizeof(REAL));
    REAL *inside = image + (l.padding * l.padded_width + l.padding) * l.in_padded;
#pragma omp for schedule(dynamic) nowait
    for (int64_t n = 0; n < f->batch; n++) {
      const int64_t first = n * f->height * f->width;
      if (f->kernel)
        affine_relu(f, &l, f->height, x, first, scale, shift, inside, l.padded_width * l.in_padded);
      memset(moments, 0, (size_t)(2 * l.padded) * sizeof(REAL));
      for (int64_t h = 0; h < l.out_height; h += l.rows) {
        const int64_t rows = min_of(l.rows, l.out_height - h), pixels = rows * l.out_width,
                      before = h * l.out_width;
        if (f->kernel)
          depthwise(f->kernel, f->stride, f->dilation, &l, rows, l.out_width,
                    image + h * f->stride * l.padded_width * l.in_padded, taps, depthwise_out);
        else
          affine_relu(f, &l, rows, x, first + before, scale, shift, depthwise_out, f->width * l.in_padded);
        matmul(pixels, l.vectors, f->in_channels, depthwise_out, l.in_padded, matrix, result, l.padded);
        store_results(f, &l, pixels, before, result, f->y + (n * l.pixels + before) * f->channels, moments);
      }
      for (int64_t c = 0; c < f->channels; c++) {
        means[n * f->channels + c] = moments[c];
        squares[n * f->channels + c] = moments[l.padded + c];
      }
    }
  }
  for (int64_t c = 0; c < f->channels; c++) {
    double centre = 0, apart = 0;
    for (int64_t n = 0; n < f->batch; n++) centre += means[n * f->channels + c] / (double)f->batch;
    for (int64_t n = 0; n < f->batch; n++) {
      double difference = means[n * f->channels + c] - centre;
      apart += squares[n * f->channels + c] + difference * difference * (double)l.pixels;
    }
    f->mean[c] = (REAL)centre;
    f->variance[c] = (REAL)(apart / (double)(f->batch * l.pixels));
  }
  free(taps), free(matrix), free(means);
}

/* The norm's output, times the factor, plus the addend. */
static void apply_norm(const block *f, const part *to) {
  const geometry l = geometry_of(f);
  REAL *affine = affine_of(f);
#pragma omp parallel for schedule(dynamic) num_threads(threads_for(f->threads, norm_work_of(f, &l)))
  for (int64_t n = 0; n < f->batch; n++) {
    const REAL factor = f->factors ? f->factors[n] : 1;
    int64_t offset = 0;
    for (const part *own = to; own->channels; offset += own->channels, own++)
      for (int64_t b = 0; b * LANES < own->channels; b++) {
        const vector scale = load_channels(affine + offset, b, own->channels) * factor;
        const vector shift = load_channels(affine + f->channels + offset, b, own->channels) * factor;
        for (int64_t p = n * l.pixels; p < (n + 1) * l.pixels; p++) {
          const int64_t at = p * f->channels + offset;
          vector v = load_channels(f->y + at, b, own->channels) * scale + shift;
          if (f->addend) v += load_channels(f->addend + at, b, own->channels);
          store_channels(own->values + p * own->step, b, own->channels, v);
        }
      }
  }
  free(affine);
}

/* Sums over all pixels of g and of g * (y - mean), g with its factor, [2][channels]. */
static void norm_sums(const block *f, const part *g, double *to) {
  const geometry l = geometry_of(f);
  double *all = zero_sums(f->batch * 2 * f->channels);
#pragma omp parallel for schedule(dynamic) num_threads(threads_for(f->threads, norm_work_of(f, &l)))
  for (int64_t n = 0; n < f->batch; n++) {
    const REAL factor = f->factors ? f->factors[n] : 1;
    int64_t offset = 0;
    for (const part *own = g; own->channels; offset += own->channels, own++)
      for (int64_t b = 0; b * LANES < own->channels; b++) {
        vector sum = {0}, product = {0}, centre = load_channels(f->mean + offset, b, own->channels);
        for (int64_t p = n * l.pixels; p < (n + 1) * l.pixels; p++) {
          vector v = load_channels(own->values + p * own->step, b, own->channels);
          sum += v;
          product += v * (load_channels(f->y + p * f->channels + offset, b, own->channels) - centre);
        }
        double *sums = all + n * 2 * f->channels + offset + b * LANES;
        for (int64_t k = 0; k < LANES && b * LANES + k < own->channels; k++) {
          sums[k] = (double)(sum[k] * factor);
          sums[f->channels + k] = (double)(product[k] * factor);
        }
      }
  }
  for (int64_t k = 0; k < 2 * f->channels; k++) {
    to[k] = 0;
    for (int64_t n = 0; n < f->batch; n++) to[k] += all[n * 2 * f->channels + k];
  }
  free(all);
}

/* Gradients of a block's weights and of its input, from that of its output and norm_sums of it.
 *
 * Where there is a block before, `grad_x` is the gradient of its output, and in_sums are norm_sums of it.
 */
static void backward(const block *f, const block *previous, const part *x, const part *g, const double *sums,
                     const part *grad_x, double *in_sums) {
  const geometry l = geometry_of(f);
  REAL *affine = previous ? affine_of(previous) : NULL;
  const REAL *scale = affine, *shift = previous ? affine + f->in_channels : NULL;
  const REAL *in_mean = previous ? previous->mean : NULL, *y_before = previous ? previous->y : NULL;
  const int64_t taps_size = f->kernel * f->kernel * l.in_padded, matrix_size = f->channels * l.in_padded;
  const int64_t groups = min_of(GROUPS, f->batch);
  const int64_t own_size = taps_size + matrix_size + 2 * l.in_padded;
  REAL *taps = zeros(taps_size), *turned = zeros(taps_size), *matrix = zeros(f->channels * l.in_padded);
  REAL *coefficients = zeros(4 * l.padded), *all = allocate(groups * own_size);
  pack_depthwise(f, &l, 0, taps);
  pack_depthwise(f, &l, 1, turned);
  pack_backward(f, &l, matrix);
  const double count = (double)(f->batch * l.pixels);
  for (int64_t c = 0; c < f->channels; c++) {
    const double deviation = 1 / sqrt(f->variance[c] + f->eps);
    const double factor = f->weight[c] * deviation;
    coefficients[c] = (REAL)factor;
    coefficients[l.padded + c] = (REAL)(-factor * sums[c] / count);
    coefficients[2 * l.padded + c] = (REAL)(-factor * deviation * deviation * sums[f->channels + c] / count);
    coefficients[3 * l.padded + c] = f->mean[c];
    f->grad_weight[c] = (REAL)(sums[f->channels + c] * deviation);
    f->grad_bias[c] = (REAL)sums[c];
  }

#pragma omp parallel num_threads(threads_for(f->threads, 3 * work_of(f, &l)))
  {
    const size_t image_size = f->kernel ? image_size_of(&l) : 0;
    const size_t depthwise_out_size = in_whole_lines((size_t)(l.rows * f->stride * f->width * l.in_padded));
    const size_t result_size = in_whole_lines((size_t)(l.rows * l.out_width * l.padded));
    /* `dilated_grad`: gradient of the depthwise results, dilated by the stride and padded like the image */
    REAL *image = scratch(2 * image_size + 2 * depthwise_out_size + result_size);
    REAL *dilated_grad = image + image_size, *depthwise_out = dilated_grad + image_size;
    REAL *grad_depthwise_out = depthwise_out + depthwise_out_size;
    REAL *grad_y = grad_depthwise_out + depthwise_out_size;
    memset(image, 0, 2 * image_size * sizeof(REAL));
    const int64_t corner = (l.padding * l.padded_width + l.padding) * l.in_padded;
    const int64_t image_row = l.padded_width * l.in_padded, row = f->width * l.in_padded;
#pragma omp for schedule(dynamic)
    for (int64_t group = 0; group < groups; group++) {
      REAL *own_taps = all + group * own_size;
      REAL *own_matrix = own_taps + taps_size, *own_sums = own_matrix + matrix_size;
      memset(own_taps, 0, (size_t)own_size * sizeof(REAL));
      for (int64_t n = group * f->batch / groups; n < (group + 1) * f->batch / groups; n++) {
        const int64_t in = n * f->height * f->width;
        if (f->kernel) affine_relu(f, &l, f->height, x, in, scale, shift, image + corner, image_row);
        for (int64_t h = 0; h < l.out_height; h += l.rows) {
          const int64_t rows = min_of(l.rows, l.out_height - h), pixels = rows * l.out_width,
                        done = h * l.out_width;
          norm_backward(f, &l, pixels, g, n * l.pixels + done, f->factors ? f->factors[n] : 1, coefficients,
                       grad_y);
          if (f->kernel) {
            const REAL *first = image + h * f->stride * image_row;
            REAL *dilated_first = dilated_grad + corner + h * f->stride * image_row;
            depthwise(f->kernel, f->stride, f->dilation, &l, rows, l.out_width, first, taps, depthwise_out);
            for (int64_t r = 0; r < rows; r++)
              matmul(l.out_width, l.in_vectors, f->channels, grad_y + r * l.out_width * l.padded, l.padded,
                      matrix, dilated_first + r * f->stride * image_row, f->stride * l.in_padded);
            depthwise_grad(f, &l, rows, first, dilated_first, own_taps);
          } else {
            affine_relu(f, &l, rows, x, in + done, scale, shift, depthwise_out, row);
            matmul(pixels, l.in_vectors, f->channels, grad_y, l.padded, matrix, grad_depthwise_out,
                    l.in_padded);
            relu_backward(f, &l, rows, grad_depthwise_out, depthwise_out, row, in + done, y_before, in_mean,
                          grad_x, own_sums);
          }
          outer(pixels, f->channels, grad_y, l.padded, l.in_vectors, depthwise_out, own_matrix);
        }
        if (f->kernel)
          for (int64_t h = 0; h < f->height; h += l.rows) {
            const int64_t rows = min_of(l.rows, f->height - h);
            depthwise(f->kernel, 1, f->dilation, &l, rows, f->width, dilated_grad + h * image_row, turned,
                      grad_depthwise_out);
            relu_backward(f, &l, rows, grad_depthwise_out, image + corner + h * image_row, image_row,
                         in + h * f->width, y_before, in_mean, grad_x, own_sums);
          }
      }
    }
#pragma omp for schedule(static) nowait
    for (int64_t k = 0; k < own_size; k++)
      for (int64_t group = 1; group < groups; group++) all[k] += all[group * own_size + k];
  }
  for (int64_t c = 0; c < f->in_channels; c++) {
    for (int64_t tap = 0; tap < f->kernel * f->kernel; tap++)
      f->grad_depthwise[c * f->kernel * f->kernel + tap] = all[tap * l.in_padded + c];
    for (int64_t d = 0; d < f->channels; d++)
      f->grad_pointwise[d * f->in_channels + c] = all[taps_size + d * l.in_padded + c];
    in_sums[c] = all[taps_size + matrix_size + c];
    in_sums[f->in_channels + c] = all[taps_size + matrix_size + l.in_padded + c];
  }
  free(taps), free(turned), free(matrix), free(coefficients), free(all), free(affine);
}

/* ---- what Python calls ---- */

/* The vector instructions that the library was compiled for. */
const char *instruction_set(void) { return INSTRUCTION_SET; }

/* The output of `count` blocks; fills y, mean and variance of each. */
void blocks_forward(const block *blocks, int64_t count, const part *x, const part *output) {
  forward(blocks, x, NULL, NULL);
  for (int64_t k = 1; k < count; k++) {
    const block *previous = blocks + k - 1;
    const part between[] = {{previous->channels, previous->channels, previous->y}, {0}};
    REAL *affine = affine_of(previous);
    forward(blocks + k, between, affine, affine + previous->channels);
    free(affine);
  }
  apply_norm(blocks + count - 1, output);
}

/* The gradient of the input; fills every `grad_` of every block; `g` is the gradient of the last output. */
void blocks_backward(const block *blocks, int64_t count, const part *x, const part *g,
                     const part *grad_x) {
  double *sums = zero_sums(2 * blocks[count - 1].channels);
  norm_sums(blocks + count - 1, g, sums);
  part between[2] = {{0}}, grad_between[2] = {{0}};
  for (int64_t k = count - 1; k >= 0; k--) {
    const block *previous = k ? blocks + k - 1 : NULL;
    const part arriving[] = {grad_between[0], {0}};
    if (previous) {
      between[0] = (part){previous->channels, previous->channels, previous->y};
      grad_between[0] = (part){previous->channels, previous->channels, previous->grad_output};
    }
    double *in_sums = zero_sums(2 * blocks[k].in_channels);
    backward(blocks + k, previous, previous ? between : x, k == count - 1 ? g : arriving, sums,
             previous ? grad_between : grad_x, in_sums);
    free(sums);
    sums = in_sums;
  }
  free(sums);
}

/* The output of `count` blocks with means and variances as they are: an image goes through all of them in the
 * cache, and no y is kept. */
void blocks_evaluate(const block *blocks, int64_t count, const part *x, const part *output) {
  geometry *geometries = malloc((size_t)count * sizeof(geometry));
  REAL **affines = malloc((size_t)count * sizeof(REAL *)), **taps = malloc((size_t)count * sizeof(REAL *));
  REAL **matrices = malloc((size_t)count * sizeof(REAL *));
  size_t *starts = malloc((size_t)(count + 1) * sizeof(size_t)); /* of the blocks' images */
  if (!geometries || !affines || !taps || !matrices || !starts) abort();
  size_t depthwise_out_size = 0, result_size = 0;
  int64_t work = 0;
  starts[0] = 0;
  for (int64_t k = 0; k < count; k++) {
    const block *f = blocks + k;
    const geometry l = geometries[k] = geometry_of(f);
    work += work_of(f, &l);
    affines[k] = affine_of(f);
    taps[k] = zeros(f->kernel * f->kernel * l.in_padded);
    matrices[k] = zeros(f->in_channels * l.padded);
    pack_depthwise(f, &l, 0, taps[k]);
    pack_forward(f, &l, matrices[k]);
    starts[k + 1] = starts[k] + (k || f->kernel ? image_size_of(&l) : 0);
    const size_t depthwise_out = in_whole_lines((size_t)(l.rows * l.out_width * l.in_padded));
    const size_t result = in_whole_lines((size_t)(l.rows * l.out_width * l.padded));
    depthwise_out_size = depthwise_out > depthwise_out_size ? depthwise_out : depthwise_out_size;
    result_size = result > result_size ? result : result_size;
  }

#pragma omp parallel num_threads(threads_for(blocks->threads, work))
  {
    /* The last block of a part may range beyond the last pixel. */
    REAL *images = scratch(starts[count] + depthwise_out_size + result_size + LANES);
    REAL *depthwise_out = images + starts[count], *result = depthwise_out + depthwise_out_size;
    memset(images, 0, starts[count] * sizeof(REAL));
#pragma omp for schedule(dynamic) nowait
    for (int64_t n = 0; n < blocks->batch; n++)
      for (int64_t k = 0; k < count; k++) {
        const block *f = blocks + k;
        const geometry l = geometries[k];
        REAL *image = images + starts[k];
        if (k == 0 && f->kernel)
          affine_relu(f, &l, f->height, x, n * f->height * f->width, NULL, NULL,
                  image + (l.padding * l.padded_width + l.padding) * l.in_padded,
                  l.padded_width * l.in_padded);
        for (int64_t h = 0; h < l.out_height; h += l.rows) {
          const int64_t rows = min_of(l.rows, l.out_height - h), done = h * l.out_width;
          const REAL *inner = depthwise_out;
          if (f->kernel)
            depthwise(f->kernel, f->stride, f->dilation, &l, rows, l.out_width,
                      image + h * f->stride * l.padded_width * l.in_padded, taps[k], depthwise_out);
          else if (k == 0)
            affine_relu(f, &l, rows, x, n * l.pixels + done, NULL, NULL, depthwise_out, f->width * l.in_padded);
          else
            inner = image + done * l.in_padded;
          matmul(rows * l.out_width, l.vectors, f->in_channels, inner, l.in_padded, matrices[k], result,
                  l.padded);
          if (k + 1 < count) {
            const geometry next = geometries[k + 1];
            REAL *to = images + starts[k + 1] +
                       ((h + next.padding) * next.padded_width + next.padding) * next.in_padded;
            store_next_input(f, &l, rows, result, affines[k], to, next.padded_width * next.in_padded);
          } else {
            store_output(f, &l, rows * l.out_width, result, affines[k], n * l.pixels + done, output);
          }
        }
      }
  }
  for (int64_t k = 0; k < count; k++) free(affines[k]), free(taps[k]), free(matrices[k]);
  free(geometries), free(affines), free(taps), free(matrices), free(starts);
}
