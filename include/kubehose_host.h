/*
 * The part of Fluent Bit's plugin ABI that kubehose uses, declared in our own words.
 *
 * The layouts are facts of the host, read from its releases 1.8 to 5.1; each struct says for which of them it holds.
 * No system header is included, so that generating the bindings needs libclang alone.
 */
#ifndef KUBEHOSE_HOST_H
#define KUBEHOSE_HOST_H

/* Values of flb_plugin_proxy_def.type and .proxy (include/fluent-bit/flb_plugin_proxy.h). */
enum { FLB_PROXY_OUTPUT_PLUGIN = 2, FLB_PROXY_GOLANG = 11 };

/* What a flush answers (include/fluent-bit/flb_output.h). Everything else counts as FLB_ERROR. */
enum { FLB_ERROR = 0, FLB_OK = 1, FLB_RETRY = 2 };

/* Severities of flb_log_print and of an output's log_level (include/fluent-bit/flb_log.h). */
enum { FLB_LOG_ERROR = 1, FLB_LOG_WARN = 2, FLB_LOG_INFO = 3, FLB_LOG_DEBUG = 4 };

/*
 * Argument of FLBPluginRegister. These five fields hold for 1.7 to 5.1. Later releases append `int event_type` (4.2.3)
 * and `struct flb_config_map *config_map` (5.1.1); older ones allocate exactly these 32 bytes. `flags` holds garbage up to
 * 4.2.2: write it. The host keeps `description` by pointer.
 */
struct flb_plugin_proxy_def {
    int type;
    int proxy;
    int flags;
    char *name;
    char *description;
};

/*
 * One entry of a table of options (include/fluent-bit/flb_config_map.h), 104 bytes since 5.0.3 and 96 before. A zeroed entry
 * ends a table. `value` and `head` belong to the host's own copies. The host never writes to a plugin's table, and reads it as long as
 * the process is.
 */
struct flb_config_map {
    int type;
    const char *name;
    const char *def_value;
    int flags;
    int set_property;
    __UINTPTR_TYPE__ offset;
    const char *desc;
    __UINTPTR_TYPE__ value[5];
    __UINTPTR_TYPE__ head[2];
};

/* The flb_config_map.type of a text. */
enum { FLB_CONFIG_MAP_STR = 0 };

/* The same argument in 5.1.1, from an allocation of 48 bytes. src/host/table.rs says how it is told from the earlier ones. */
struct flb_plugin_proxy_def_5_1_1 {
    struct flb_plugin_proxy_def before;
    int event_type;
    const struct flb_config_map *config_map;
};

/* An output's instance. Opaque: its layout changes with every release. */
struct flb_output_instance;

/*
 * The host's table of functions (include/fluent-bit/flb_api.h). Only the first entry stands at the same place in every
 * release from 1.8; the others are asked of the dynamic linker by name, below.
 */
struct flb_api {
    const char *(*output_get_property)(const char *key, struct flb_output_instance *ins);
};

/* What the proxy gives each output to keep its own handle in; holds for 1.8 to 5.1. */
struct flb_plugin_proxy_context {
    void *remote_context;
    void *proxy;
};

/*
 * Argument of FLBPluginInit (src/proxy/go/go.h). ONE per loaded image, written over at each Init. Five callbacks
 * follow, which are the host's own business. Holds for 1.8 to 5.1.
 */
struct flbgo_output_plugin {
    char *name;
    struct flb_api *api;
    struct flb_output_instance *o_ins;
    struct flb_plugin_proxy_context *context;
};

/*
 * Functions that the host's executable exports, looked up with dlsym(RTLD_DEFAULT, …) and absent on some releases.
 * Only their types are used.
 */
typedef void (*flb_log_print_fn)(int type, const char *file, int line, const char *fmt, ...);
typedef int (*flb_output_log_check_fn)(struct flb_output_instance *ins, int level);
typedef const char *(*flb_output_name_fn)(struct flb_output_instance *ins);

/*
 * The host's metrics library (lib/cmetrics), the same from 2.0 to 5.1. A context belongs to an output; what is created in
 * it is freed with it. Time stamps are nanoseconds since 1970. The texts are copied.
 */
struct cmt;
struct cmt_counter;
struct cmt_gauge;
struct cmt_histogram;
struct cmt_histogram_buckets;
typedef struct cmt *(*flb_output_get_cmt_instance_fn)(struct flb_output_instance *ins);
typedef struct cmt_counter *(*cmt_counter_create_fn)(struct cmt *cmt, char *ns, char *subsystem, char *name, char *help,
                                                     int label_count, char **label_keys);
typedef int (*cmt_counter_set_fn)(struct cmt_counter *counter, unsigned long long timestamp, double value,
                                  int label_count, char **label_values);
typedef struct cmt_gauge *(*cmt_gauge_create_fn)(struct cmt *cmt, char *ns, char *subsystem, char *name, char *help,
                                                 int label_count, char **label_keys);
typedef int (*cmt_gauge_set_fn)(struct cmt_gauge *gauge, unsigned long long timestamp, double value, int label_count,
                                char **label_values);
typedef struct cmt_histogram_buckets *(*cmt_histogram_buckets_create_size_fn)(double *bounds, __SIZE_TYPE__ count);
typedef struct cmt_histogram *(*cmt_histogram_create_fn)(struct cmt *cmt, char *ns, char *subsystem, char *name,
                                                         char *help, struct cmt_histogram_buckets *buckets,
                                                         int label_count, char **label_keys);
typedef int (*cmt_histogram_set_default_fn)(struct cmt_histogram *histogram, unsigned long long timestamp,
                                            unsigned long long *buckets, double sum, unsigned long long count,
                                            int label_count, char **label_values);

#endif
