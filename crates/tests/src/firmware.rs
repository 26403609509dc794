//! Firmware that vouches for a certificate: OVMF, with the certificate in `db`, the list of whom UEFI trusts. The kernel
//! reads that list at boot, whether or not Secure Boot is on (`security/integrity/platform_certs/load_uefi.c`).
//!
//! The variable is written into the file that OVMF keeps its variables in, as edk2 lays it out
//! (`MdeModulePkg/Include/Guid/VariableFormat.h`): a firmware volume's header, the store's header, then the variables,
//! one after the other, in flash that reads as ones where nothing was written.

use anyhow::{Context, Result, ensure};
use schedswap_guest::Firmware;
use std::fs;
use std::path::Path;

/// Where Debian's package ovmf has the build without Secure Boot, and the variables that it begins with.
const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// `gEfiAuthenticatedVariableGuid`: what kind of store it is.
const STORE: [u8; 16] = guid(0xaaf32c78, 0x947b, 0x439a, 0xa180_2e14_4ec3_7792);
/// `EFI_IMAGE_SECURITY_DATABASE_GUID`: whose variable `db` is.
const SECURITY_DATABASE: [u8; 16] = guid(0xd719b2cb, 0x3d3a, 0x4596, 0xa3bc_dad0_0e67_656f);
/// `EFI_CERT_X509_GUID`
const X509: [u8; 16] = guid(0xa5c059a1, 0x94e4, 0x4aa7, 0x87b5_ab15_5c2b_f072);
/// Of the certificate's owner: anything will do.
const OWNER: [u8; 16] = guid(0x73636865, 0x6473, 0x7761, 0x7000_0000_0000_0001);

/// Begins a variable, and is missing where no more follow.
const VARIABLE_START: u16 = 0x55aa;
/// `VAR_ADDED`: written whole, and not deleted.
const ADDED: u8 = 0x3f;
/// Kept, for boot services and at run time, changed by signed updates only: what UEFI wants of `db`.
const ATTRIBUTES: u32 = 0x27;
/// `sizeof(AUTHENTICATED_VARIABLE_HEADER)`, and where in it the lengths of name and data are.
const HEADER_BYTES: usize = 60;
const NAME_LEN_AT: usize = 36;
const DATA_LEN_AT: usize = 40;

/// UEFI's binary form, whose first three fields are little endian.
const fn guid(first: u32, second: u16, third: u16, rest: u64) -> [u8; 16] {
    let (a, b, c, d) = (first.to_le_bytes(), second.to_le_bytes(), third.to_le_bytes(), rest.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// Firmware that trusts a certificate (DER); `dir` gets the file of its variables.
pub fn trusting(certificate: &[u8], dir: &Path) -> Result<Firmware> {
    let read =
        |path| fs::read(path).with_context(|| format!("reading {path}: is the package ovmf installed?"));
    let mut store = read(VARIABLES)?;
    add(&mut store, "db", SECURITY_DATABASE, &signature_list(certificate)).context(VARIABLES)?;
    let variables = dir.join("variables.fd");
    fs::write(&variables, store).with_context(|| format!("writing {}", variables.display()))?;
    Ok(Firmware { code: CODE.into(), variables })
}

/// `EFI_SIGNATURE_LIST` of one certificate.
fn signature_list(certificate: &[u8]) -> Vec<u8> {
    let signature_len = 16 + certificate.len();
    let words = [28 + signature_len, 0, signature_len].map(|word| (word as u32).to_le_bytes());
    [&X509[..], &words.concat(), &OWNER, certificate].concat()
}

/// Adds a variable after those that are there.
fn add(store: &mut [u8], name: &str, vendor: [u8; 16], data: &[u8]) -> Result<()> {
    let at = end_of_variables(store)?;
    let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let mut variable = Vec::new();
    variable.extend(VARIABLE_START.to_le_bytes());
    variable.extend([ADDED, 0]);
    variable.extend(ATTRIBUTES.to_le_bytes());
    // Monotonic count, time stamp, index of the public key: for signed updates, of which there was none.
    variable.extend([0; 8 + 16 + 4]);
    variable.extend((name.len() as u32).to_le_bytes());
    variable.extend((data.len() as u32).to_le_bytes());
    variable.extend(vendor);
    variable.extend(name);
    variable.extend(data);
    let place = store.get_mut(at..at + variable.len()).context("the variable does not fit")?;
    ensure!(place.iter().all(|byte| *byte == 0xff), "at {at:#x} nothing should have been written yet");
    place.copy_from_slice(&variable);
    Ok(())
}

/// Where the next variable goes.
fn end_of_variables(store: &[u8]) -> Result<usize> {
    ensure!(store.get(40..44) == Some(b"_FVH"), "it does not begin with the header of a firmware volume");
    let begin = usize::from(u16::from_le_bytes([store[48], store[49]]));
    ensure!(store.get(begin..begin + 16) == Some(&STORE), "expected a store of authenticated variables");
    let mut at = begin + 28;
    let word = |at: usize| -> Result<usize> {
        let bytes = store.get(at..at + 4).context("it ends within a variable")?;
        Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    while store.get(at..at + 2) == Some(&VARIABLE_START.to_le_bytes()) {
        let end = at + HEADER_BYTES + word(at + NAME_LEN_AT)? + word(at + DATA_LEN_AT)?;
        at = end.next_multiple_of(4);
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty_store() -> Vec<u8> {
        let mut store = vec![0; 72];
        store[40..44].copy_from_slice(b"_FVH");
        store[48] = 72;
        store.extend(STORE);
        store.extend([0; 12]);
        store.resize(1024, 0xff);
        store
    }

    #[test]
    fn variables_follow_each_other_at_multiples_of_four() {
        let mut store = empty_store();
        assert_eq!(end_of_variables(&store).unwrap(), 100);
        add(&mut store, "a", OWNER, b"12345").unwrap();
        // 60 of the header, 4 of the name, 5 of the data.
        assert_eq!(end_of_variables(&store).unwrap(), 100 + 72);
        add(&mut store, "bc", OWNER, b"").unwrap();
        assert_eq!(end_of_variables(&store).unwrap(), 100 + 72 + 68);
        assert_eq!(&store[100 + 60..][..9], b"a\0\0\x0012345");
        assert!(add(&mut store, "d", OWNER, &[0; 2000]).is_err());
    }

    #[test]
    fn what_is_no_store_is_refused() {
        assert!(end_of_variables(&[0xff; 1024]).is_err());
        let mut other = empty_store();
        other[72] ^= 1;
        assert!(end_of_variables(&other).is_err());
    }
}
