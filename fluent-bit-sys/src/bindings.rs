pub const FLB_PROXY_OUTPUT_PLUGIN: _bindgen_ty_1 = 2;
pub const FLB_PROXY_GOLANG: _bindgen_ty_1 = 11;
pub type _bindgen_ty_1 = ::std::os::raw::c_uint;
pub const FLB_ERROR: _bindgen_ty_2 = 0;
pub const FLB_OK: _bindgen_ty_2 = 1;
pub const FLB_RETRY: _bindgen_ty_2 = 2;
pub type _bindgen_ty_2 = ::std::os::raw::c_uint;
pub const FLB_LOG_ERROR: _bindgen_ty_3 = 1;
pub const FLB_LOG_WARN: _bindgen_ty_3 = 2;
pub const FLB_LOG_INFO: _bindgen_ty_3 = 3;
pub const FLB_LOG_DEBUG: _bindgen_ty_3 = 4;
pub type _bindgen_ty_3 = ::std::os::raw::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct flb_plugin_proxy_def {
    pub type_: ::std::os::raw::c_int,
    pub proxy: ::std::os::raw::c_int,
    pub flags: ::std::os::raw::c_int,
    pub name: *mut ::std::os::raw::c_char,
    pub description: *mut ::std::os::raw::c_char,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of flb_plugin_proxy_def",
    ][::std::mem::size_of::<flb_plugin_proxy_def>() - 32usize];
    [
        "Alignment of flb_plugin_proxy_def",
    ][::std::mem::align_of::<flb_plugin_proxy_def>() - 8usize];
    [
        "Offset of field: flb_plugin_proxy_def::type_",
    ][::std::mem::offset_of!(flb_plugin_proxy_def, type_) - 0usize];
    [
        "Offset of field: flb_plugin_proxy_def::proxy",
    ][::std::mem::offset_of!(flb_plugin_proxy_def, proxy) - 4usize];
    [
        "Offset of field: flb_plugin_proxy_def::flags",
    ][::std::mem::offset_of!(flb_plugin_proxy_def, flags) - 8usize];
    [
        "Offset of field: flb_plugin_proxy_def::name",
    ][::std::mem::offset_of!(flb_plugin_proxy_def, name) - 16usize];
    [
        "Offset of field: flb_plugin_proxy_def::description",
    ][::std::mem::offset_of!(flb_plugin_proxy_def, description) - 24usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct flb_config_map {
    pub type_: ::std::os::raw::c_int,
    pub name: *const ::std::os::raw::c_char,
    pub def_value: *const ::std::os::raw::c_char,
    pub flags: ::std::os::raw::c_int,
    pub set_property: ::std::os::raw::c_int,
    pub offset: ::std::os::raw::c_ulong,
    pub desc: *const ::std::os::raw::c_char,
    pub value: [::std::os::raw::c_ulong; 5usize],
    pub head: [::std::os::raw::c_ulong; 2usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of flb_config_map"][::std::mem::size_of::<flb_config_map>() - 104usize];
    ["Alignment of flb_config_map"][::std::mem::align_of::<flb_config_map>() - 8usize];
    [
        "Offset of field: flb_config_map::type_",
    ][::std::mem::offset_of!(flb_config_map, type_) - 0usize];
    [
        "Offset of field: flb_config_map::name",
    ][::std::mem::offset_of!(flb_config_map, name) - 8usize];
    [
        "Offset of field: flb_config_map::def_value",
    ][::std::mem::offset_of!(flb_config_map, def_value) - 16usize];
    [
        "Offset of field: flb_config_map::flags",
    ][::std::mem::offset_of!(flb_config_map, flags) - 24usize];
    [
        "Offset of field: flb_config_map::set_property",
    ][::std::mem::offset_of!(flb_config_map, set_property) - 28usize];
    [
        "Offset of field: flb_config_map::offset",
    ][::std::mem::offset_of!(flb_config_map, offset) - 32usize];
    [
        "Offset of field: flb_config_map::desc",
    ][::std::mem::offset_of!(flb_config_map, desc) - 40usize];
    [
        "Offset of field: flb_config_map::value",
    ][::std::mem::offset_of!(flb_config_map, value) - 48usize];
    [
        "Offset of field: flb_config_map::head",
    ][::std::mem::offset_of!(flb_config_map, head) - 88usize];
};
pub const FLB_CONFIG_MAP_STR: _bindgen_ty_4 = 0;
pub type _bindgen_ty_4 = ::std::os::raw::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct flb_plugin_proxy_def_5_1_1 {
    pub before: flb_plugin_proxy_def,
    pub event_type: ::std::os::raw::c_int,
    pub config_map: *const flb_config_map,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of flb_plugin_proxy_def_5_1_1",
    ][::std::mem::size_of::<flb_plugin_proxy_def_5_1_1>() - 48usize];
    [
        "Alignment of flb_plugin_proxy_def_5_1_1",
    ][::std::mem::align_of::<flb_plugin_proxy_def_5_1_1>() - 8usize];
    [
        "Offset of field: flb_plugin_proxy_def_5_1_1::before",
    ][::std::mem::offset_of!(flb_plugin_proxy_def_5_1_1, before) - 0usize];
    [
        "Offset of field: flb_plugin_proxy_def_5_1_1::event_type",
    ][::std::mem::offset_of!(flb_plugin_proxy_def_5_1_1, event_type) - 32usize];
    [
        "Offset of field: flb_plugin_proxy_def_5_1_1::config_map",
    ][::std::mem::offset_of!(flb_plugin_proxy_def_5_1_1, config_map) - 40usize];
};
#[repr(C)]
#[derive(Debug)]
pub struct flb_output_instance {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct flb_api {
    pub output_get_property: ::std::option::Option<
        unsafe extern "C" fn(
            key: *const ::std::os::raw::c_char,
            ins: *mut flb_output_instance,
        ) -> *const ::std::os::raw::c_char,
    >,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of flb_api"][::std::mem::size_of::<flb_api>() - 8usize];
    ["Alignment of flb_api"][::std::mem::align_of::<flb_api>() - 8usize];
    [
        "Offset of field: flb_api::output_get_property",
    ][::std::mem::offset_of!(flb_api, output_get_property) - 0usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct flb_plugin_proxy_context {
    pub remote_context: *mut ::std::os::raw::c_void,
    pub proxy: *mut ::std::os::raw::c_void,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of flb_plugin_proxy_context",
    ][::std::mem::size_of::<flb_plugin_proxy_context>() - 16usize];
    [
        "Alignment of flb_plugin_proxy_context",
    ][::std::mem::align_of::<flb_plugin_proxy_context>() - 8usize];
    [
        "Offset of field: flb_plugin_proxy_context::remote_context",
    ][::std::mem::offset_of!(flb_plugin_proxy_context, remote_context) - 0usize];
    [
        "Offset of field: flb_plugin_proxy_context::proxy",
    ][::std::mem::offset_of!(flb_plugin_proxy_context, proxy) - 8usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct flbgo_output_plugin {
    pub name: *mut ::std::os::raw::c_char,
    pub api: *mut flb_api,
    pub o_ins: *mut flb_output_instance,
    pub context: *mut flb_plugin_proxy_context,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of flbgo_output_plugin",
    ][::std::mem::size_of::<flbgo_output_plugin>() - 32usize];
    [
        "Alignment of flbgo_output_plugin",
    ][::std::mem::align_of::<flbgo_output_plugin>() - 8usize];
    [
        "Offset of field: flbgo_output_plugin::name",
    ][::std::mem::offset_of!(flbgo_output_plugin, name) - 0usize];
    [
        "Offset of field: flbgo_output_plugin::api",
    ][::std::mem::offset_of!(flbgo_output_plugin, api) - 8usize];
    [
        "Offset of field: flbgo_output_plugin::o_ins",
    ][::std::mem::offset_of!(flbgo_output_plugin, o_ins) - 16usize];
    [
        "Offset of field: flbgo_output_plugin::context",
    ][::std::mem::offset_of!(flbgo_output_plugin, context) - 24usize];
};
pub type flb_log_print_fn = ::std::option::Option<
    unsafe extern "C" fn(
        type_: ::std::os::raw::c_int,
        file: *const ::std::os::raw::c_char,
        line: ::std::os::raw::c_int,
        fmt: *const ::std::os::raw::c_char,
        ...
    ),
>;
pub type flb_output_log_check_fn = ::std::option::Option<
    unsafe extern "C" fn(
        ins: *mut flb_output_instance,
        level: ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int,
>;
pub type flb_output_name_fn = ::std::option::Option<
    unsafe extern "C" fn(ins: *mut flb_output_instance) -> *const ::std::os::raw::c_char,
>;
#[repr(C)]
#[derive(Debug)]
pub struct cmt {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct cmt_counter {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct cmt_gauge {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct cmt_histogram {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct cmt_histogram_buckets {
    _unused: [u8; 0],
}
pub type flb_output_get_cmt_instance_fn = ::std::option::Option<
    unsafe extern "C" fn(ins: *mut flb_output_instance) -> *mut cmt,
>;
pub type cmt_counter_create_fn = ::std::option::Option<
    unsafe extern "C" fn(
        cmt: *mut cmt,
        ns: *mut ::std::os::raw::c_char,
        subsystem: *mut ::std::os::raw::c_char,
        name: *mut ::std::os::raw::c_char,
        help: *mut ::std::os::raw::c_char,
        label_count: ::std::os::raw::c_int,
        label_keys: *mut *mut ::std::os::raw::c_char,
    ) -> *mut cmt_counter,
>;
pub type cmt_counter_set_fn = ::std::option::Option<
    unsafe extern "C" fn(
        counter: *mut cmt_counter,
        timestamp: ::std::os::raw::c_ulonglong,
        value: f64,
        label_count: ::std::os::raw::c_int,
        label_values: *mut *mut ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int,
>;
pub type cmt_gauge_create_fn = ::std::option::Option<
    unsafe extern "C" fn(
        cmt: *mut cmt,
        ns: *mut ::std::os::raw::c_char,
        subsystem: *mut ::std::os::raw::c_char,
        name: *mut ::std::os::raw::c_char,
        help: *mut ::std::os::raw::c_char,
        label_count: ::std::os::raw::c_int,
        label_keys: *mut *mut ::std::os::raw::c_char,
    ) -> *mut cmt_gauge,
>;
pub type cmt_gauge_set_fn = ::std::option::Option<
    unsafe extern "C" fn(
        gauge: *mut cmt_gauge,
        timestamp: ::std::os::raw::c_ulonglong,
        value: f64,
        label_count: ::std::os::raw::c_int,
        label_values: *mut *mut ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int,
>;
pub type cmt_histogram_buckets_create_size_fn = ::std::option::Option<
    unsafe extern "C" fn(
        bounds: *mut f64,
        count: ::std::os::raw::c_ulong,
    ) -> *mut cmt_histogram_buckets,
>;
pub type cmt_histogram_create_fn = ::std::option::Option<
    unsafe extern "C" fn(
        cmt: *mut cmt,
        ns: *mut ::std::os::raw::c_char,
        subsystem: *mut ::std::os::raw::c_char,
        name: *mut ::std::os::raw::c_char,
        help: *mut ::std::os::raw::c_char,
        buckets: *mut cmt_histogram_buckets,
        label_count: ::std::os::raw::c_int,
        label_keys: *mut *mut ::std::os::raw::c_char,
    ) -> *mut cmt_histogram,
>;
pub type cmt_histogram_set_default_fn = ::std::option::Option<
    unsafe extern "C" fn(
        histogram: *mut cmt_histogram,
        timestamp: ::std::os::raw::c_ulonglong,
        buckets: *mut ::std::os::raw::c_ulonglong,
        sum: f64,
        count: ::std::os::raw::c_ulonglong,
        label_count: ::std::os::raw::c_int,
        label_values: *mut *mut ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int,
>;
