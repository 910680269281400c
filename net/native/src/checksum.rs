//! The two checksums of v5 frames.
//!
//! CRC24 guards the header of a frame, whose length field decides where the next frame starts. CRC32 guards the
//! payload; it starts from a state fed with four fixed bytes, so that a run of zeros has a checksum that is not zero.

const CRC24_INITIAL: u32 = 0x0087_5060;
const CRC24_POLYNOMIAL: u32 = 0x0197_4F0B;

/// What the CRC32 of a payload has been fed with before the payload.
pub const CRC32_SEED: [u8; 4] = [0xFA, 0x2D, 0x55, 0xCA];

/// crc32 of [`CRC32_SEED`].
const CRC32_INITIAL: u32 = 0x4477_7ED3;

static CRC24_TABLE: [u32; 256] = crc24_table();

const fn crc24_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u32) << 16;
        let mut bit = 0;
        while bit < 8 {
            crc <<= 1;
            if crc & 0x0100_0000 != 0 {
                crc ^= CRC24_POLYNOMIAL;
            }
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// CRC24 of the bytes of a frame header.
pub fn crc24(bytes: &[u8]) -> u32 {
    bytes.iter().fold(CRC24_INITIAL, |crc, &byte| {
        let index = ((crc >> 16) as u8) ^ byte;
        ((crc << 8) & 0x00FF_FFFF) ^ CRC24_TABLE[usize::from(index)]
    })
}

/// CRC32 of a payload as it is on the wire, seeded.
pub fn crc32(payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(CRC32_INITIAL);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values() {
        assert_eq!(crc24(b"123456789"), 0x4b_3f02);
        assert_eq!(crc32(b"123456789"), 0xe2a2_61a7);
    }

    #[test]
    fn the_initial_state_is_that_of_the_seed() {
        assert_eq!(crc32fast::hash(&CRC32_SEED), CRC32_INITIAL);
    }
}
