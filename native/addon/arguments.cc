#include "arguments.h"

#include <cmath>
#include <cstdio>

namespace tesra {
namespace {

const char* type_name(napi_typedarray_type t) {
  switch (t) {
    case napi_int8_array: return "Int8Array";
    case napi_uint8_array: return "Uint8Array";
    case napi_uint8_clamped_array: return "Uint8ClampedArray";
    case napi_int16_array: return "Int16Array";
    case napi_uint16_array: return "Uint16Array";
    case napi_int32_array: return "Int32Array";
    case napi_uint32_array: return "Uint32Array";
    case napi_float32_array: return "Float32Array";
    case napi_float64_array: return "Float64Array";
    default: return "BigInt64Array";
  }
}

size_t element_size(napi_typedarray_type t) {
  switch (t) {
    case napi_int8_array:
    case napi_uint8_array:
    case napi_uint8_clamped_array: return 1;
    case napi_int16_array:
    case napi_uint16_array: return 2;
    case napi_int32_array:
    case napi_uint32_array:
    case napi_float32_array: return 4;
    default: return 8;
  }
}

std::string kind_of(Napi::Value v) {
  if (v.IsEmpty()) return "nothing";
  switch (v.Type()) {
    case napi_undefined: return "undefined";
    case napi_null: return "null";
    case napi_boolean: return "a boolean";
    case napi_number: return "the number " + std::to_string(v.As<Napi::Number>().DoubleValue());
    case napi_string: return "a string";
    case napi_symbol: return "a symbol";
    case napi_function: return "a function";
    case napi_bigint: return "a bigint";
    default: return "an object";
  }
}

}  // namespace

const char* code_name(int code) {
  switch (code) {
    case TESRA_E_ARGUMENT: return "argument";
    case TESRA_E_SHAPE: return "shape";
    case TESRA_E_MEMORY: return "memory";
    case TESRA_E_UNSUPPORTED: return "unsupported";
    case TESRA_E_DEVICE: return "device";
    case TESRA_E_UNAVAILABLE: return "unavailable";
    default: return "capacity";
  }
}

Napi::Error make_error(Napi::Env env, const char* code, const std::string& message,
                       const std::string& op, int op_index) {
  Napi::Error e = Napi::Error::New(env, message);
  e.Set("code", Napi::String::New(env, code));
  if (!op.empty()) e.Set("op", Napi::String::New(env, op));
  if (op_index >= 0) e.Set("opIndex", Napi::Number::New(env, op_index));
  return e;
}

void throw_error(Napi::Env env, const char* code, const std::string& message) {
  if (env.IsExceptionPending()) return;
  make_error(env, code, message).ThrowAsJavaScriptException();
}

void throw_error(Napi::Env env, const tesra_error& error) {
  throw_error(env, code_name(error.code), error.message);
}

bool read_any_view(Napi::Env env, Napi::Value value, const char* name, View* out) {
  bool is = false;
  if (value.IsEmpty() || napi_is_typedarray(env, value, &is) != napi_ok || !is) {
    throw_error(env, "argument",
                std::string(name) + " must be a typed array, but is " + kind_of(value));
    return false;
  }
  void* data = nullptr;
  size_t length = 0;
  if (napi_get_typedarray_info(env, value, &out->type, &length, &data, nullptr, nullptr) !=
      napi_ok) {
    throw_error(env, "argument", std::string(name) + " could not be read");
    return false;
  }
  out->data = static_cast<uint8_t*>(data);
  out->length = data ? length : 0;
  out->bytes = out->length * element_size(out->type);
  return true;
}

bool read_view(Napi::Env env, Napi::Value value, const char* name, napi_typedarray_type type,
               size_t elements, View* out) {
  if (!read_any_view(env, value, name, out)) return false;
  if (out->type != type) {
    throw_error(env, "argument", std::string(name) + " must be a " + type_name(type) +
                                     ", but is a " + type_name(out->type));
    return false;
  }
  if (elements != SIZE_MAX && out->length != elements) {
    throw_error(env, "shape", std::string(name) + " must have " + std::to_string(elements) +
                                  " elements, but has " + std::to_string(out->length) +
                                  " (0 also means that its buffer was transferred away)");
    return false;
  }
  return true;
}

bool overlap(const View& a, const View& b) {
  return a.bytes != 0 && b.bytes != 0 && a.data < b.data + b.bytes && b.data < a.data + a.bytes;
}

bool read_object(Napi::Env env, Napi::Value value, const char* name, Napi::Object* out) {
  if (value.IsEmpty() || !value.IsObject()) {
    throw_error(env, "argument",
                std::string(name) + " must be an object, but is " + kind_of(value));
    return false;
  }
  *out = value.As<Napi::Object>();
  return true;
}

bool read_property(Napi::Env env, Napi::Object object, const char* key, Napi::Value* out) {
  napi_value v = nullptr;
  if (napi_get_named_property(env, object, key, &v) != napi_ok || env.IsExceptionPending()) {
    throw_error(env, "argument", std::string("property ") + key + " could not be read");
    return false;
  }
  *out = Napi::Value(env, v);
  return true;
}

bool read_number(Napi::Env env, Napi::Value value, const char* name, double* out) {
  if (!value.IsEmpty() && value.IsBoolean()) {
    *out = value.As<Napi::Boolean>().Value() ? 1 : 0;
    return true;
  }
  if (value.IsEmpty() || !value.IsNumber() ||
      !std::isfinite(*out = value.As<Napi::Number>().DoubleValue())) {
    throw_error(env, "argument",
                std::string(name) + " must be a finite number, but is " + kind_of(value));
    return false;
  }
  return true;
}

bool read_integer(Napi::Env env, Napi::Value value, const char* name, double low, double high,
                  double* out) {
  if (!read_number(env, value, name, out)) return false;
  if (*out != std::floor(*out) || *out < low || *out > high) {
    char text[160];
    std::snprintf(text, sizeof text, " must be an integer from %.0f to %.0f, but is %g", low, high,
                  *out);
    throw_error(env, "argument", std::string(name) + text);
    return false;
  }
  return true;
}

bool read_string(Napi::Env env, Napi::Value value, const char* name, size_t most,
                 std::string* out) {
  size_t length = 0;
  if (value.IsEmpty() || !value.IsString() ||
      napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok || length > most) {
    throw_error(env, "argument", std::string(name) + " must be a string of at most " +
                                     std::to_string(most) + " bytes, but is " + kind_of(value));
    return false;
  }
  *out = value.As<Napi::String>().Utf8Value();
  return true;
}

bool integer_property(Napi::Env env, Napi::Object o, const char* key, double low, double high,
                      const double* fallback, double* out) {
  Napi::Value v;
  if (!read_property(env, o, key, &v)) return false;
  if (v.IsUndefined() && fallback) {
    *out = *fallback;
    return true;
  }
  return read_integer(env, v, key, low, high, out);
}

bool number_property(Napi::Env env, Napi::Object o, const char* key, const double* fallback,
                     double* out) {
  Napi::Value v;
  if (!read_property(env, o, key, &v)) return false;
  if (v.IsUndefined() && fallback) {
    *out = *fallback;
    return true;
  }
  return read_number(env, v, key, out);
}

bool flag_property(Napi::Env env, Napi::Object o, const char* key, bool* out) {
  const double no = 0;
  double x = 0;
  if (!integer_property(env, o, key, 0, 1, &no, &x)) return false;
  *out = x != 0;
  return true;
}

bool uint64_property(Napi::Env env, Napi::Object o, const char* key, uint64_t high, uint64_t* out) {
  Napi::Value v;
  if (!read_property(env, o, key, &v)) return false;
  bool fits = false;
  if (v.IsBigInt()) {
    *out = v.As<Napi::BigInt>().Uint64Value(&fits);
  } else if (v.IsNumber()) {
    const double x = v.As<Napi::Number>().DoubleValue();
    fits = x >= 0 && x <= 9007199254740991.0 && x == std::floor(x);
    *out = fits ? static_cast<uint64_t>(x) : 0;
  }
  if (fits && *out <= high) return true;
  throw_error(env, "argument", std::string(key) + " must be an integer from 0 to " +
                                   std::to_string(high) + ", as a bigint or a safe number");
  return false;
}

bool read_dims(Napi::Env env, Napi::Value value, double low, int32_t* m, int32_t* n, int32_t* k) {
  Napi::Object o;
  double dm = 0, dn = 0, dk = 0;
  if (!read_object(env, value, "dims", &o) ||
      !integer_property(env, o, "m", low, 1 << 30, nullptr, &dm) ||
      !integer_property(env, o, "n", low, 1 << 30, nullptr, &dn) ||
      !integer_property(env, o, "k", low, 1 << 30, nullptr, &dk))
    return false;
  *m = static_cast<int32_t>(dm), *n = static_cast<int32_t>(dn), *k = static_cast<int32_t>(dk);
  return true;
}

}  // namespace tesra
