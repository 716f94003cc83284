//! A request with raw tensors, as the Open Inference Protocol's binary extension has it.

#![allow(unreachable_pub, reason = "an example has no outside")]

/// Of one window of a model, whole, to be written to a connection.
pub fn binary(model: &str, window: &[f32]) -> Vec<u8> {
    let header = format!(
        r#"{{"inputs":[{{"name":"y","datatype":"FP32","shape":[1,{}],"parameters":{{"binary_data_size":{}}}}}],"parameters":{{"binary_data_output":true}}}}"#,
        window.len(),
        size_of_val(window)
    );
    let body: Vec<u8> = header.bytes().chain(window.iter().flat_map(|value| value.to_le_bytes())).collect();
    let mut request = format!(
        "POST /v2/models/{model}/infer HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\n\
         inference-header-content-length: {}\r\ncontent-length: {}\r\n\r\n",
        header.len(),
        body.len()
    )
    .into_bytes();
    request.extend(body);
    request
}
