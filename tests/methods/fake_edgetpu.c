/* A stand-in for libedgetpu: a TFLite delegate that takes every "edgetpu-custom-op" and fills each output with
 * the first byte of the image. Types repeat what TFLite's C interface has had since 2019. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int size; int data[]; } IntArray;
typedef struct {
  int type;
  union { int8_t* bytes; } data;
  IntArray* dims;
  struct { float scale; int32_t zero_point; } params;
  int allocation_type;
  size_t bytes;
  const void* allocation;
  const char* name;
  void* delegate;
  int buffer_handle;
  char data_is_stale, is_variable;
  struct { int type; void* params; } quantization;
  const void* sparsity;
  const IntArray* dims_signature;
} Tensor;
typedef struct { IntArray *inputs, *outputs; } Node;
typedef struct Context Context;
typedef struct {
  void* (*init)(Context*, const char*, size_t);
  void (*free)(Context*, void*);
  int (*prepare)(Context*, Node*);
  int (*invoke)(Context*, Node*);
  const char* (*profiling_string)(const Context*, const Node*);
  int32_t builtin_code;
  const char* custom_name;
  int version;
  void *external, *async_kernel;
  uint64_t inplace_operator;
} Registration;
typedef struct Delegate {
  void* data;
  int (*prepare)(Context*, struct Delegate*);
  void *copy_from, *copy_to, *free_handle;
  int64_t flags;
  void* others[16];
} Delegate;
struct Context {
  size_t tensors_size;
  int (*get_execution_plan)(Context*, IntArray**);
  Tensor* tensors;
  void *impl, *resize_tensor, *report_error, *add_tensors;
  int (*get_node)(Context*, int, Node**, Registration**);
  int (*replace)(Context*, Registration, const IntArray*, Delegate*);
};

static int ready(Context* context, Node* node) { return (void)context, (void)node, 0; }

static int invoke(Context* context, Node* node) {
  for (int i = 0; i < node->outputs->size; i++) {
    Tensor* out = &context->tensors[node->outputs->data[i]];
    memset(out->data.bytes, context->tensors[node->inputs->data[0]].data.bytes[0], out->bytes);
  }
  return 0;
}

static int prepare(Context* context, Delegate* delegate) {
  IntArray* plan;
  if (context->get_execution_plan(context, &plan)) return 1;
  IntArray* ours = calloc(1, sizeof(IntArray) + plan->size * sizeof(int));
  for (int i = 0; i < plan->size; i++) {
    Node* node;
    Registration* registration;
    if (context->get_node(context, plan->data[i], &node, &registration)) return 1;
    if (registration->custom_name && !strcmp(registration->custom_name, "edgetpu-custom-op"))
      ours->data[ours->size++] = plan->data[i];
  }
  Registration kernel = {.prepare = ready, .invoke = invoke, .custom_name = "FakeEdgeTpu", .version = 1};
  int status = context->replace(context, kernel, ours, delegate);
  free(ours);
  return status;
}

void* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*report)(const char*)) {
  if (getenv("FAKE_EDGETPU_ABSENT")) return report(""), NULL; /* as libedgetpu does without a stick */
  if (getenv("FAKE_EDGETPU_LOG")) {
    FILE* log = fopen(getenv("FAKE_EDGETPU_LOG"), "w");
    for (size_t i = 0; i < count; i++) fprintf(log, "%s=%s\n", keys[i], values[i]);
    fclose(log);
  }
  Delegate* delegate = calloc(1, sizeof(Delegate));
  delegate->prepare = prepare;
  delegate->flags = 1; /* dynamic tensors are allowed, so that no operator is prepared before it is replaced */
  return delegate;
}

void tflite_plugin_destroy_delegate(void* delegate) { free(delegate); }
