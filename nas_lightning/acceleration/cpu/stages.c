/* A stage of a separable convolution on channels-last images: per-channel scale and shift, ReLU, depthwise
 * convolution, 1x1 convolution and the sums of the batch norm behind it, an image at a time, so that what
 * lies between the stages' inputs and outputs stays in a core's cache. The backward pass computes it anew.
 * Max pooling (stage_pooling.h) is part of the same library.
 *
 * Compiled once for float and once for double (-DREAL=float). Channels are padded to whole vectors inside.
 */

#include "stage_loops.h"
#include "stage_pooling.h"

/* ---- a stage ---- */

/* Scale and shift of a norm by channel, [2][channels]; to be freed. */
static REAL *affine_of(const stage *s) {
  REAL *affine = numbers(2 * s->channels);
  for (int64_t c = 0; c < s->channels; c++) {
    const double scale = s->weight[c] / sqrt(s->variance[c] + s->eps);
    affine[c] = (REAL)scale;
    affine[s->channels + c] = (REAL)(s->bias[c] - s->mean[c] * scale);
  }
  return affine;
}

/* y [batch, pixels, channels] of a stage; its mean and (biased) variance by channel. */
static void forward(const stage *s, const part *x, const REAL *scale, const REAL *shift) {
  const layout l = layout_of(s);
  REAL *taps = numbers(s->kernel * s->kernel * l.in_padded), *matrix = numbers(s->in_channels * l.padded);
  double *means = sums_of(2 * s->batch * s->channels), *squares = means + s->batch * s->channels;
  arrange_depthwise(s, &l, 0, taps);
  arrange_forward(s, &l, matrix);

#pragma omp parallel num_threads((int)s->threads)
  {
    const size_t image_size = s->kernel ? image_size_of(&l) : 0;
    const size_t middle_size = in_whole_lines((size_t)(l.rows * l.out_width * l.in_padded));
    const size_t result_size = in_whole_lines((size_t)(l.rows * l.out_width * l.padded));
    REAL *image = reserve(image_size + middle_size + result_size + (size_t)(2 * l.padded));
    REAL *middle = image + image_size, *result = middle + middle_size, *moments = result + result_size;
    memset(image, 0, image_size * sizeof(REAL));
    REAL *inside = image + (l.padding * l.padded_width + l.padding) * l.in_padded;
#pragma omp for schedule(dynamic)
    for (int64_t n = 0; n < s->batch; n++) {
      const int64_t first = n * s->height * s->width;
      if (s->kernel) rectify(s, &l, s->height, x, first, scale, shift, inside, l.padded_width * l.in_padded);
      memset(moments, 0, (size_t)(2 * l.padded) * sizeof(REAL));
      for (int64_t h = 0; h < l.out_height; h += l.rows) {
        const int64_t rows = smaller(l.rows, l.out_height - h), pixels = rows * l.out_width,
                      before = h * l.out_width;
        if (s->kernel)
          depthwise(s->kernel, s->stride, s->dilation, &l, rows, l.out_width,
                    image + h * s->stride * l.padded_width * l.in_padded, taps, middle);
        else
          rectify(s, &l, rows, x, first + before, scale, shift, middle, s->width * l.in_padded);
        product(pixels, l.blocks, s->in_channels, middle, l.in_padded, matrix, result, l.padded);
        keep_results(s, &l, pixels, before, result, s->y + (n * l.pixels + before) * s->channels, moments);
      }
      for (int64_t c = 0; c < s->channels; c++) {
        means[n * s->channels + c] = moments[c];
        squares[n * s->channels + c] = moments[l.padded + c];
      }
    }
  }
  for (int64_t c = 0; c < s->channels; c++) {
    double centre = 0, apart = 0;
    for (int64_t n = 0; n < s->batch; n++) centre += means[n * s->channels + c] / (double)s->batch;
    for (int64_t n = 0; n < s->batch; n++) {
      double difference = means[n * s->channels + c] - centre;
      apart += squares[n * s->channels + c] + difference * difference * (double)l.pixels;
    }
    s->mean[c] = (REAL)centre;
    s->variance[c] = (REAL)(apart / (double)(s->batch * l.pixels));
  }
  free(taps), free(matrix), free(means);
}

/* The norm's output, times the factor, plus the addend. */
static void normalise(const stage *s, const part *to) {
  const layout l = layout_of(s);
  REAL *affine = affine_of(s);
#pragma omp parallel for schedule(dynamic) num_threads((int)s->threads)
  for (int64_t n = 0; n < s->batch; n++) {
    const REAL factor = s->factors ? s->factors[n] : 1;
    int64_t offset = 0;
    for (const part *own = to; own->channels; offset += own->channels, own++)
      for (int64_t b = 0; b * LANES < own->channels; b++) {
        const vector scale = load_block(affine + offset, b, own->channels) * factor;
        const vector shift = load_block(affine + s->channels + offset, b, own->channels) * factor;
        for (int64_t p = n * l.pixels; p < (n + 1) * l.pixels; p++) {
          const int64_t at = p * s->channels + offset;
          vector v = load_block(s->y + at, b, own->channels) * scale + shift;
          if (s->addend) v += load_block(s->addend + at, b, own->channels);
          store_block(own->at + p * own->step, b, own->channels, v);
        }
      }
  }
  free(affine);
}

/* Sums over all pixels of g and of g * (y - mean), g with its factor, [2][channels]. */
static void norm_sums(const stage *s, const part *g, double *to) {
  const layout l = layout_of(s);
  double *all = sums_of(s->batch * 2 * s->channels);
#pragma omp parallel for schedule(dynamic) num_threads((int)s->threads)
  for (int64_t n = 0; n < s->batch; n++) {
    const REAL factor = s->factors ? s->factors[n] : 1;
    int64_t offset = 0;
    for (const part *own = g; own->channels; offset += own->channels, own++)
      for (int64_t b = 0; b * LANES < own->channels; b++) {
        vector sum = {0}, product = {0}, centre = load_block(s->mean + offset, b, own->channels);
        for (int64_t p = n * l.pixels; p < (n + 1) * l.pixels; p++) {
          vector v = load_block(own->at + p * own->step, b, own->channels);
          sum += v;
          product += v * (load_block(s->y + p * s->channels + offset, b, own->channels) - centre);
        }
        double *sums = all + n * 2 * s->channels + offset + b * LANES;
        for (int64_t k = 0; k < LANES && b * LANES + k < own->channels; k++) {
          sums[k] = (double)(sum[k] * factor);
          sums[s->channels + k] = (double)(product[k] * factor);
        }
      }
  }
  for (int64_t k = 0; k < 2 * s->channels; k++) {
    to[k] = 0;
    for (int64_t n = 0; n < s->batch; n++) to[k] += all[n * 2 * s->channels + k];
  }
  free(all);
}

/* Gradients of a stage's weights and of its input, from that of its output and norm_sums of it.
 *
 * Where there is a stage before, `towards_x` is the gradient of its output, and in_sums are norm_sums of it.
 */
static void backward(const stage *s, const stage *before, const part *x, const part *g, const double *sums,
                     const part *towards_x, double *in_sums) {
  const layout l = layout_of(s);
  REAL *affine = before ? affine_of(before) : NULL;
  const REAL *scale = affine, *shift = before ? affine + s->in_channels : NULL;
  const REAL *in_mean = before ? before->mean : NULL, *y_before = before ? before->y : NULL;
  const int64_t taps_size = s->kernel * s->kernel * l.in_padded, matrix_size = s->channels * l.in_padded;
  const int64_t groups = smaller(GROUPS, s->batch);
  const int64_t own_size = taps_size + matrix_size + 2 * l.in_padded;
  REAL *taps = numbers(taps_size), *turned = numbers(taps_size), *matrix = numbers(s->channels * l.in_padded);
  REAL *coefficients = numbers(4 * l.padded), *all = room_for(groups * own_size);
  arrange_depthwise(s, &l, 0, taps);
  arrange_depthwise(s, &l, 1, turned);
  arrange_backward(s, &l, matrix);
  const double count = (double)(s->batch * l.pixels);
  for (int64_t c = 0; c < s->channels; c++) {
    const double deviation = 1 / sqrt(s->variance[c] + s->eps);
    const double factor = s->weight[c] * deviation;
    coefficients[c] = (REAL)factor;
    coefficients[l.padded + c] = (REAL)(-factor * sums[c] / count);
    coefficients[2 * l.padded + c] = (REAL)(-factor * deviation * deviation * sums[s->channels + c] / count);
    coefficients[3 * l.padded + c] = s->mean[c];
    s->towards_weight[c] = (REAL)(sums[s->channels + c] * deviation);
    s->towards_bias[c] = (REAL)sums[c];
  }

#pragma omp parallel num_threads((int)s->threads)
  {
    const size_t image_size = s->kernel ? image_size_of(&l) : 0;
    const size_t middle_size = in_whole_lines((size_t)(l.rows * s->stride * s->width * l.in_padded));
    const size_t result_size = in_whole_lines((size_t)(l.rows * l.out_width * l.padded));
    /* `spread`: the gradient of the depthwise results, apart by the stride and padded like the image */
    REAL *image = reserve(2 * image_size + 2 * middle_size + result_size);
    REAL *spread = image + image_size, *middle = spread + image_size;
    REAL *towards_middle = middle + middle_size, *towards_y = towards_middle + middle_size;
    memset(image, 0, 2 * image_size * sizeof(REAL));
    const int64_t corner = (l.padding * l.padded_width + l.padding) * l.in_padded;
    const int64_t image_row = l.padded_width * l.in_padded, row = s->width * l.in_padded;
#pragma omp for schedule(dynamic)
    for (int64_t group = 0; group < groups; group++) {
      REAL *own_taps = all + group * own_size;
      REAL *own_matrix = own_taps + taps_size, *own_sums = own_matrix + matrix_size;
      memset(own_taps, 0, (size_t)own_size * sizeof(REAL));
      for (int64_t n = group * s->batch / groups; n < (group + 1) * s->batch / groups; n++) {
        const int64_t in = n * s->height * s->width;
        if (s->kernel) rectify(s, &l, s->height, x, in, scale, shift, image + corner, image_row);
        for (int64_t h = 0; h < l.out_height; h += l.rows) {
          const int64_t rows = smaller(l.rows, l.out_height - h), pixels = rows * l.out_width,
                        done = h * l.out_width;
          through_norm(s, &l, pixels, g, n * l.pixels + done, s->factors ? s->factors[n] : 1, coefficients,
                       towards_y);
          if (s->kernel) {
            const REAL *first = image + h * s->stride * image_row;
            REAL *spread_first = spread + corner + h * s->stride * image_row;
            depthwise(s->kernel, s->stride, s->dilation, &l, rows, l.out_width, first, taps, middle);
            for (int64_t r = 0; r < rows; r++)
              product(l.out_width, l.in_blocks, s->channels, towards_y + r * l.out_width * l.padded, l.padded,
                      matrix, spread_first + r * s->stride * image_row, s->stride * l.in_padded);
            depthwise_weights(s, &l, rows, first, spread_first, own_taps);
          } else {
            rectify(s, &l, rows, x, in + done, scale, shift, middle, row);
            product(pixels, l.in_blocks, s->channels, towards_y, l.padded, matrix, towards_middle,
                    l.in_padded);
            through_relu(s, &l, rows, towards_middle, middle, row, in + done, y_before, in_mean, towards_x,
                         own_sums);
          }
          outer(pixels, s->channels, towards_y, l.padded, l.in_blocks, middle, own_matrix);
        }
        if (s->kernel)
          for (int64_t h = 0; h < s->height; h += l.rows) {
            const int64_t rows = smaller(l.rows, s->height - h);
            depthwise(s->kernel, 1, s->dilation, &l, rows, s->width, spread + h * image_row, turned,
                      towards_middle);
            through_relu(s, &l, rows, towards_middle, image + corner + h * image_row, image_row,
                         in + h * s->width, y_before, in_mean, towards_x, own_sums);
          }
      }
    }
#pragma omp for schedule(static)
    for (int64_t k = 0; k < own_size; k++)
      for (int64_t group = 1; group < groups; group++) all[k] += all[group * own_size + k];
  }
  for (int64_t c = 0; c < s->in_channels; c++) {
    for (int64_t tap = 0; tap < s->kernel * s->kernel; tap++)
      s->towards_depthwise[c * s->kernel * s->kernel + tap] = all[tap * l.in_padded + c];
    for (int64_t d = 0; d < s->channels; d++)
      s->towards_pointwise[d * s->in_channels + c] = all[taps_size + d * l.in_padded + c];
    in_sums[c] = all[taps_size + matrix_size + c];
    in_sums[s->in_channels + c] = all[taps_size + matrix_size + l.in_padded + c];
  }
  free(taps), free(turned), free(matrix), free(coefficients), free(all), free(affine);
}

/* ---- what Python calls ---- */

/* The output of `count` stages; fills y, mean and variance of each. */
void stages_forward(const stage *stages, int64_t count, const part *x, const part *output) {
  forward(stages, x, NULL, NULL);
  for (int64_t k = 1; k < count; k++) {
    const stage *before = stages + k - 1;
    const part between[] = {{before->channels, before->channels, before->y}, {0}};
    REAL *affine = affine_of(before);
    forward(stages + k, between, affine, affine + before->channels);
    free(affine);
  }
  normalise(stages + count - 1, output);
}

/* The gradient of the input; fills all `towards_` of every stage but towards_output of the last, which is
 * `g`. */
void stages_backward(const stage *stages, int64_t count, const part *x, const part *g,
                     const part *towards_x) {
  double *sums = sums_of(2 * stages[count - 1].channels);
  norm_sums(stages + count - 1, g, sums);
  part between[2] = {{0}}, towards_between[2] = {{0}};
  for (int64_t k = count - 1; k >= 0; k--) {
    const stage *before = k ? stages + k - 1 : NULL;
    const part arriving[] = {towards_between[0], {0}};
    if (before) {
      between[0] = (part){before->channels, before->channels, before->y};
      towards_between[0] = (part){before->channels, before->channels, before->towards_output};
    }
    double *in_sums = sums_of(2 * stages[k].in_channels);
    backward(stages + k, before, before ? between : x, k == count - 1 ? g : arriving, sums,
             before ? towards_between : towards_x, in_sums);
    free(sums);
    sums = in_sums;
  }
  free(sums);
}

/* The output of `count` stages with means and variances as they are: an image goes through all of them in the
 * cache, and no y is kept. */
void stages_evaluate(const stage *stages, int64_t count, const part *x, const part *output) {
  layout *layouts = malloc((size_t)count * sizeof(layout));
  REAL **affines = malloc((size_t)count * sizeof(REAL *)), **taps = malloc((size_t)count * sizeof(REAL *));
  REAL **matrices = malloc((size_t)count * sizeof(REAL *));
  size_t *starts = malloc((size_t)(count + 1) * sizeof(size_t)); /* of the stages' images */
  if (!layouts || !affines || !taps || !matrices || !starts) abort();
  size_t middle_size = 0, result_size = 0;
  starts[0] = 0;
  for (int64_t k = 0; k < count; k++) {
    const stage *s = stages + k;
    const layout l = layouts[k] = layout_of(s);
    affines[k] = affine_of(s);
    taps[k] = numbers(s->kernel * s->kernel * l.in_padded);
    matrices[k] = numbers(s->in_channels * l.padded);
    arrange_depthwise(s, &l, 0, taps[k]);
    arrange_forward(s, &l, matrices[k]);
    starts[k + 1] = starts[k] + (k || s->kernel ? image_size_of(&l) : 0);
    const size_t middle = in_whole_lines((size_t)(l.rows * l.out_width * l.in_padded));
    const size_t result = in_whole_lines((size_t)(l.rows * l.out_width * l.padded));
    middle_size = middle > middle_size ? middle : middle_size;
    result_size = result > result_size ? result : result_size;
  }

#pragma omp parallel num_threads((int)stages->threads)
  {
    /* The last block of a part may reach beyond the last pixel. */
    REAL *images = reserve(starts[count] + middle_size + result_size + LANES);
    REAL *middle = images + starts[count], *result = middle + middle_size;
    memset(images, 0, starts[count] * sizeof(REAL));
#pragma omp for schedule(dynamic)
    for (int64_t n = 0; n < stages->batch; n++)
      for (int64_t k = 0; k < count; k++) {
        const stage *s = stages + k;
        const layout l = layouts[k];
        REAL *image = images + starts[k];
        if (k == 0 && s->kernel)
          rectify(s, &l, s->height, x, n * s->height * s->width, NULL, NULL,
                  image + (l.padding * l.padded_width + l.padding) * l.in_padded,
                  l.padded_width * l.in_padded);
        for (int64_t h = 0; h < l.out_height; h += l.rows) {
          const int64_t rows = smaller(l.rows, l.out_height - h), done = h * l.out_width;
          const REAL *inner = middle;
          if (s->kernel)
            depthwise(s->kernel, s->stride, s->dilation, &l, rows, l.out_width,
                      image + h * s->stride * l.padded_width * l.in_padded, taps[k], middle);
          else if (k == 0)
            rectify(s, &l, rows, x, n * l.pixels + done, NULL, NULL, middle, s->width * l.in_padded);
          else
            inner = image + done * l.in_padded;
          product(rows * l.out_width, l.blocks, s->in_channels, inner, l.in_padded, matrices[k], result,
                  l.padded);
          if (k + 1 < count) {
            const layout next = layouts[k + 1];
            REAL *to = images + starts[k + 1] +
                       ((h + next.padding) * next.padded_width + next.padding) * next.in_padded;
            hand_on(s, &l, rows, result, affines[k], to, next.padded_width * next.in_padded);
          } else {
            keep_output(s, &l, rows * l.out_width, result, affines[k], n * l.pixels + done, output);
          }
        }
      }
  }
  for (int64_t k = 0; k < count; k++) free(affines[k]), free(taps[k]), free(matrices[k]);
  free(layouts), free(affines), free(taps), free(matrices), free(starts);
}
