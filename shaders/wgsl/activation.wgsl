// Activations, appended to every kernel.

const IDENTITY: u32 = 0u;
const RELU: u32 = 1u;
const SOFTPLUS: u32 = 2u;
const TANH: u32 = 3u;
const SELU: u32 = 4u;
const LEAKY: u32 = 5u;
const SIGMOID: u32 = 6u;
const GELU: u32 = 7u;

fn activate(activation: u32, slope: f32, x: f32) -> f32 {
    switch activation {
        case RELU: { return select(x, 0.0, x < 0.0); }
        case SOFTPLUS: { return softplus(x); }
        case TANH: { return tangent(x); }
        case SELU: { return 1.0507009873554805 * select(1.6732632423543772 * exp_m1(x), x, x > 0.0); }
        case LEAKY: { return select(slope * x, x, x > 0.0); }
        case SIGMOID: { return sigmoid(x); }
        case GELU: { return gelu(x); }
        default: { return x; }
    }
}

// Already 1.0 in f32 beyond 15; some drivers give NaN further out.
fn tangent(x: f32) -> f32 {
    return tanh(clamp(x, -15.0, 15.0));
}

fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(clamp(-x, -87.0, 87.0)));
}

// ln(1 + exp x). Below −4 a short series in exp x, because 1 + exp x has lost its digits there.
fn softplus(x: f32) -> f32 {
    let e = exp(clamp(x, -87.0, 20.0));
    let near = select(log(1.0 + e), e * (1.0 - e * (0.5 - e * 0.33333334)), x < -4.0);
    return select(near, x, x > 20.0);
}

// exp x − 1 for x ≤ 0: a series near zero, where the difference would lose its digits.
fn exp_m1(x: f32) -> f32 {
    let series = x * (1.0 + x * (0.5 + x * (0.16666667 + x * (0.041666668 + x * 0.008333334))));
    return select(exp(clamp(x, -87.0, 0.0)) - 1.0, series, x > -0.25);
}

// x · ½ erfc(−x / √2), by the polynomial of its twin in cpu/activation.rs.
fn gelu(x: f32) -> f32 {
    let u = abs(x) * 0.70710677;
    let s = (u - 2.0) / (u + 2.0);
    var p = 6.090864e-5;
    p = fma(s, p, 3.268804e-5);
    p = fma(s, p, -5.888767e-4);
    p = fma(s, p, -8.179191e-4);
    p = fma(s, p, 3.063696e-3);
    p = fma(s, p, 6.471019e-3);
    p = fma(s, p, -2.1506327e-2);
    p = fma(s, p, -3.6441135e-2);
    p = fma(s, p, 2.7947183e-1);
    p = fma(s, p, -6.871607e-1);
    p = fma(s, p, 1.0215827);
    let tail = select(0.5 * exp(max(-0.5 * x * x, -87.0)) * p / (u + 2.0), 0.0, u > 9.4);
    return x * select(1.0 - tail, tail, x < 0.0);
}
