/* What this processor can do, as far as the kernels are compiled for it apart. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static PyObject *has_avx2(PyObject *self, PyObject *arguments)
{
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    return PyBool_FromLong(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
#else
    Py_RETURN_FALSE;
#endif
}

static PyMethodDef methods[] = {
    {"has_avx2", has_avx2, METH_NOARGS, "Whether processor and operating system support AVX2 and FMA."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_cpu", NULL, 0, methods};

PyMODINIT_FUNC PyInit__cpu(void)
{
    return PyModule_Create(&module);
}
