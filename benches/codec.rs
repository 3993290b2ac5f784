//! Header, CRC-32 and Base64, encoded and decoded, beside the two plain ways.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wsferry::protocol::chunk::{self, Header};

/// From 3 KiB to a whole block; 24,546 bytes is what a 32 KiB frame limit allows.
const SIZES: [usize; 7] = [3 << 10, 24_546, 48 << 10, 192 << 10, 576 << 10, 768 << 10, 3 << 20];

const HEADER: Header = Header { transfer: 2, sequence: 1, offset: 3 };

fn random(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(7).fill(&mut bytes);
    bytes
}

fn codec(c: &mut Criterion) {
    let mut encode = c.benchmark_group("encode");
    for len in SIZES {
        let bytes = random(len);
        encode.throughput(Throughput::Bytes(len as u64));
        let mut frame = vec![0; chunk::frame_len(len)];
        encode.bench_function(BenchmarkId::new("chunk frame", len), |b| {
            b.iter(|| chunk::encode(HEADER, &bytes, &mut frame));
        });
        assert_eq!(frame[chunk::HEADER_LEN..], *STANDARD.encode(&bytes).as_bytes());
        encode.bench_function(BenchmarkId::new("scalar Base64 alone", len), |b| {
            b.iter(|| STANDARD.encode_slice(&bytes, &mut frame).expect("there is room"));
        });
    }
    let whole = random(64 << 20);
    encode.sample_size(10).throughput(Throughput::Bytes(whole.len() as u64));
    encode.bench_function("whole file as one string", |b| b.iter(|| STANDARD.encode(&whole)));
    encode.finish();

    let mut decode = c.benchmark_group("decode");
    for len in SIZES {
        let bytes = random(len);
        let mut frame = vec![0; chunk::frame_len(len)];
        chunk::encode(HEADER, &bytes, &mut frame);
        let mut out = Vec::new();
        decode.throughput(Throughput::Bytes(len as u64));
        decode.bench_function(BenchmarkId::new("chunk frame", len), |b| {
            b.iter(|| chunk::decode(&frame, &mut out).expect("the frame is good"));
        });
        assert_eq!(out[..len], bytes);
        let body = frame.split_off(chunk::HEADER_LEN);
        decode.bench_function(BenchmarkId::new("scalar Base64 alone", len), |b| {
            b.iter(|| STANDARD.decode_slice(&body, &mut out).expect("the body is good"));
        });
    }
    decode.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
