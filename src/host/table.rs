//! The table of our options, for a host that reads one: Fluent Bit 5.1.1 then refuses unknown and repeated options itself, and lists
//! ours in `fluent-bit -o kubehose -h`.
//!
//! No symbol tells which release the host is. So the table is offered only if all of this is as it is in 5.1.1, and else everything is left as
//! it was:
//! - the host's own table of its options for outputs (`output_global_properties`) is made of whole entries of the layout that we
//!   know: this tells the releases before 5.0.3 apart;
//! - the definition is a block of 48 bytes, and what we do not know of it is zero: this tells 5.0.3 to 5.1.0 apart, where it is
//!   one of 40, and keeps the write inside of the block.
#![allow(unsafe_code)]

use super::{executable, object, symbol};
use fluent_bit_sys as ffi;
use once_cell::sync::OnceCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::{offset_of, size_of};
use std::ptr::{NonNull, null};

/// One option, as the host shows it.
#[derive(Clone, Debug)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// Its value when it is not given; empty if there is none.
    pub default: &'static str,
    /// What it does.
    pub help: String,
}

type Entry = ffi::flb_config_map;
type Definition = ffi::flb_plugin_proxy_def_5_1_1;

/// The end of a table.
const END: Entry = Entry {
    type_: 0,
    name: null(),
    def_value: null(),
    flags: 0,
    set_property: 0,
    offset: 0,
    desc: null(),
    value: [0; 5],
    head: [0; 2],
};

/// A table that the host reads as long as the process is.
struct Table(Vec<Entry>);

// SAFETY: nobody writes to the table or its texts, which are never freed.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

static TABLE: OnceCell<Table> = OnceCell::new();

impl Table {
    fn new(options: &[Property]) -> Option<Table> {
        let entry = |option: &Property| {
            let default = (!option.default.is_empty()).then(|| CString::new(option.default)).transpose().ok()?;
            Some(Entry {
                type_: ffi::FLB_CONFIG_MAP_STR as c_int,
                name: CString::new(option.name).ok()?.into_raw(),
                def_value: default.map_or(null(), |text| text.into_raw().cast_const()),
                desc: CString::new(option.help.as_str()).ok()?.into_raw(),
                ..END
            })
        };
        let entries: Option<Vec<Entry>> = options.iter().map(entry).collect();
        entries.map(|mut entries| {
            entries.push(END);
            Table(entries)
        })
    }
}

/// Offers the table of these options to the host, if it is one that reads it.
///
/// # Safety
/// `definition` is what the host passes to FLBPluginRegister.
pub unsafe fn offer(definition: *mut ffi::flb_plugin_proxy_def, options: &[Property]) {
    // The first question decides which hosts get the second.
    if !knows_the_layout() {
        return;
    }
    let Some(size) = block_size(definition.cast()) else { return };
    // A block of 48 bytes is one of 56 for the allocator of glibc.
    if !(size_of::<Definition>()..=size_of::<Definition>() + 8).contains(&size) {
        return;
    }
    let definition = definition.cast::<Definition>();
    // SAFETY: the block has room for these fields, and the host has zeroed it (calloc, since 4.2.3).
    let unset = unsafe {
        (&raw const (*definition).event_type).read() == 0 && (&raw const (*definition).config_map).read().is_null()
    };
    if let (true, Ok(table)) = (unset, TABLE.get_or_try_init(|| Table::new(options).ok_or(()))) {
        // SAFETY: as above; the table is never moved or freed.
        unsafe { (&raw mut (*definition).config_map).write(table.0.as_ptr()) };
    }
}

/// How many bytes the allocator has given for a block of the host's; `None` if its functions are not of one allocator.
fn block_size(block: *mut c_void) -> Option<usize> {
    let (allocate, size) = (symbol(c"calloc")?, symbol(c"malloc_usable_size")?);
    if object(allocate.as_ptr())? != object(size.as_ptr())? {
        return None;
    }
    // SAFETY: every allocator that exports the name gives it this type.
    let size = unsafe { std::mem::transmute::<NonNull<c_void>, unsafe extern "C" fn(*mut c_void) -> usize>(size) };
    // SAFETY: the host has this block from `calloc`, of the same allocator.
    Some(unsafe { size(block) })
}

/// Whether the host's own table of options is one of entries as we know them.
fn knows_the_layout() -> bool {
    /// Asks dladdr1 for the symbol (dlfcn.h).
    const RTLD_DL_SYMENT: c_int = 1;
    let Some(table) = symbol(c"output_global_properties") else { return false };
    let executable = executable();
    // SAFETY: plain data that dladdr1 fills.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    let mut entry: *mut c_void = std::ptr::null_mut();
    // SAFETY: takes any address; for RTLD_DL_SYMENT the result is a pointer to the object's entry of the symbol, or null.
    let known = unsafe { libc::dladdr1(table.as_ptr(), &mut found, &mut entry, RTLD_DL_SYMENT) } != 0;
    if !known || entry.is_null() || found.dli_saddr != table.as_ptr() || Some(found.dli_fbase.addr()) != executable {
        return false;
    }
    // SAFETY: the entry lies in the executable's table of symbols, which stays mapped.
    let length = unsafe { (*entry.cast::<libc::Elf64_Sym>()).st_size } as usize;
    // SAFETY: the executable says that so many bytes are at the symbol; the host does not write to them.
    let bytes = unsafe { std::slice::from_raw_parts(table.as_ptr().cast::<u8>(), length) };
    has_our_layout(bytes, &|address| {
        let at = std::ptr::with_exposed_provenance::<c_char>(address);
        // SAFETY: it is a text in the executable's own constants.
        (object(at.cast()) == executable).then(|| unsafe { CStr::from_ptr(at) })
    })
}

/// Whether these bytes are a table of entries with our layout, whose texts `text` finds: the host's options of every output.
fn has_our_layout<'a>(bytes: &[u8], text: &dyn Fn(usize) -> Option<&'a CStr>) -> bool {
    let word = |entry: &[u8], at: usize| {
        entry.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(usize::MAX, usize::from_ne_bytes)
    };
    let number = |entry: &[u8], at: usize| {
        entry.get(at..at + 4).and_then(|number| number.try_into().ok()).map_or(i32::MAX, i32::from_ne_bytes)
    };
    let (entries, rest) = bytes.as_chunks::<{ size_of::<Entry>() }>();
    let Some((end, entries)) = entries.split_last() else { return false };
    let names: Option<Vec<&CStr>> = entries
        .iter()
        .map(|entry| {
            let default = word(entry, offset_of!(Entry, def_value));
            let right = (0..64).contains(&number(entry, offset_of!(Entry, type_)))
                && (0..4).contains(&number(entry, offset_of!(Entry, flags)))
                && number(entry, offset_of!(Entry, set_property)) == 0
                && word(entry, offset_of!(Entry, offset)) == 0
                && (default == 0 || text(default).is_some())
                && text(word(entry, offset_of!(Entry, desc))).is_some_and(|help| !help.is_empty())
                && entry.get(offset_of!(Entry, value)..).is_some_and(|rest| rest.iter().all(|byte| *byte == 0));
            let name = text(word(entry, offset_of!(Entry, name)))?;
            right.then_some(name)
        })
        .collect();
    let known = [c"match", c"alias", c"log_level", c"retry_limit"];
    rest.is_empty()
        && end.iter().all(|byte| *byte == 0)
        && names.is_some_and(|names| known.iter().all(|known| names.contains(known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host's table with entries of `stride` bytes; its texts lie at made-up addresses, which are returned, too.
    fn table(stride: usize, names: &[&'static CStr]) -> (Vec<u8>, Vec<(usize, &'static CStr)>) {
        let (mut bytes, mut texts) = (Vec::new(), Vec::new());
        for name in names {
            let mut entry = vec![0; stride];
            for (at, text) in [(8, *name), (16, c"info"), (40, c"what it does")] {
                let address = 0x1000 + texts.len() * 256;
                texts.push((address, text));
                entry[at..at + 8].copy_from_slice(&address.to_ne_bytes());
            }
            bytes.extend(entry);
        }
        bytes.extend(vec![0; stride]);
        (bytes, texts)
    }

    fn is_ours(bytes: &[u8], texts: &[(usize, &'static CStr)]) -> bool {
        has_our_layout(bytes, &|address| texts.iter().find(|(at, _)| *at == address).map(|(_, text)| *text))
    }

    const NAMES: [&CStr; 6] =
        [c"match", c"match_regex", c"alias", c"log_level", c"log_suppress_interval", c"retry_limit"];

    #[test]
    fn only_a_table_of_the_known_layout_is_known() {
        let (bytes, texts) = table(104, &NAMES);
        assert!(is_ours(&bytes, &texts));
        // Before 5.0.3, and sizes that no release has had.
        for stride in (48..200).step_by(8).filter(|stride| *stride != 104) {
            let (bytes, texts) = table(stride, &NAMES);
            assert!(!is_ours(&bytes, &texts), "{stride}");
        }
        let (other, texts) = table(104, &[c"listen", c"port"]);
        assert!(!is_ours(&other, &texts));
        assert!(!is_ours(&[], &[]));
    }

    #[test]
    fn a_table_with_anything_else_in_it_is_not_known() {
        let (bytes, texts) = table(104, &NAMES);
        for end in 0..bytes.len() {
            assert!(!is_ours(&bytes[..end], &texts), "cut at {end}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x80;
            // What stands between type and name is padding.
            let padding = (4..8).contains(&(at % 104)) && at < bytes.len() - 104;
            assert_eq!(is_ours(&changed, &texts), padding, "changed at {at}");
        }
    }

    #[test]
    fn the_table_names_each_option_once_and_ends() {
        let options: Vec<Property> = ["a", "b"]
            .into_iter()
            .map(|name| Property { name, default: if name == "a" { "" } else { "1" }, help: format!("{name}!") })
            .collect();
        let table = Table::new(&options).unwrap();
        // SAFETY: the texts were made above.
        let text = |at: *const c_char| (!at.is_null()).then(|| unsafe { CStr::from_ptr(at) }.to_str().unwrap());
        let shown: Vec<_> =
            table.0.iter().map(|entry| (text(entry.name), text(entry.def_value), text(entry.desc))).collect();
        assert_eq!(shown, [(Some("a"), None, Some("a!")), (Some("b"), Some("1"), Some("b!")), (None, None, None)]);
    }
}
