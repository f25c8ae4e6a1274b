// Keypoints on a microcontroller, by TensorFlow Lite Micro: see docs/devices.md of kp2d.
#include "kp2d_decode.h"
#include "s.h"  // kp2d quantize kp2d_tiny_s --image-size 88x88 -o s.h
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

constexpr int kTopK = 150;
alignas(16) static uint8_t arena[512 * 1024];
static kp2d_keypoint keypoints[kTopK];
static float descriptors[kTopK][32];

void camera_read(uint8_t *pixels, int height, int width);  // yours: RGB, row by row
void keypoints_found(const kp2d_keypoint *keypoints, const float (*descriptors)[32], int count);  // yours

int main() {
  tflite::MicroMutableOpResolver<6> resolver;
  resolver.AddConv2D();
  resolver.AddMaxPool2D();
  resolver.AddDepthToSpace();
  resolver.AddConcatenation();
  resolver.AddLogistic();
  resolver.AddTanh();
  tflite::MicroInterpreter interpreter(tflite::GetModel(g_s), resolver, arena, sizeof(arena));
  if (interpreter.AllocateTensors() != kTfLiteOk) return 1;  // the arena is too small

  TfLiteTensor *input = interpreter.input(0);
  const int height = input->dims->data[1], width = input->dims->data[2];
  kp2d_heads heads = {};
  heads.cell = g_s_cell;
  heads.scores = g_s_scores;
  for (int i = 0; i < 3; ++i) {  // heads come in any order and differ in their number of channels
    const TfLiteTensor *head = interpreter.output(i);
    const int rows = head->dims->data[1], columns = head->dims->data[2], channels = head->dims->data[3];
    if (channels == 1) {
      heads.rows = rows, heads.columns = columns, heads.score = head->data.int8;
    } else if (channels == 2) {
      heads.offset = head->data.int8;
      heads.offset_scale = head->params.scale, heads.offset_zero = head->params.zero_point;
    } else {
      heads.descriptor_rows = rows, heads.descriptor_columns = columns, heads.dim = channels;
      heads.descriptor = head->data.int8;
      heads.descriptor_scale = head->params.scale, heads.descriptor_zero = head->params.zero_point;
    }
  }
  for (;;) {
    camera_read(input->data.uint8, height, width);
    for (int i = 0; i < height * width * 3; ++i) input->data.uint8[i] ^= 0x80;  // a pixel p is the int8 p - 128
    if (interpreter.Invoke() != kTfLiteOk) return 1;
    const int count = kp2d_keypoints(&heads, 0.0f, kTopK, keypoints);
    for (int i = 0; i < count; ++i) kp2d_descriptor(&heads, keypoints[i], descriptors[i]);
    keypoints_found(keypoints, descriptors, count);
  }
}
