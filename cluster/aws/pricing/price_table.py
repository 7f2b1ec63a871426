"""On-demand Linux prices in us-east-1: a family's price is linear in its size, with exceptions.

Source: the public AWS price list of `AS_OF`. An entry is `family usd-per-xlarge [size=factor …]`; a
size without a factor has the common one (`xlarge` 1, `large` 0.5, `12xlarge` 12, …). Entries are
separated by semicolons.
"""

AS_OF = "2026-07-20"

FAMILIES = """
a1 0.102 metal=4; c1 0.52; c3 0.21; c4 0.198875 large=0.50283; c5 0.17 metal=24; c5a 0.154; c5ad
0.172; c5d 0.192 metal=24; c5n 0.216 metal=18; c6a 0.153 metal=48; c6g 0.136 metal=16.96; c6gd
0.1536 metal=16.96; c6gn 0.1728; c6i 0.17 metal=32; c6id 0.2016 metal=32; c6in 0.2268 metal=32; c7a
0.20528 metal-48xl=48; c7g 0.145 metal=16; c7gd 0.181438 metal=16; c7gn 0.2496 metal=16; c7i 0.1785
metal-24xl=26.4 metal-48xl=48; c7i-flex 0.169575; c8a 0.21554 metal-24xl=26.4 metal-48xl=48; c8g
0.15952 metal-24xl=26.4 metal-48xl=48; c8gb 0.237 metal-24xl=25.44 metal-48xl=48; c8gd 0.19596
metal-24xl=26.4 metal-48xl=48; c8gn 0.237 metal-24xl=25.44 metal-48xl=48; c8i 0.18742
metal-48xl=52.8 metal-96xl=96; c8i-flex 0.17804; c8ib 0.27216 metal-48xl=52.8 metal-96xl=96; c8id
0.22176 metal-48xl=52.8 metal-96xl=96; c8in 0.27216 metal-48xl=52.8 metal-96xl=96; c8ine 0.3402; c9g
0.17388 metal-48xl=52.8; c9gd 0.2136 metal-48xl=52.8; cr1 0.4375; d2 0.69; d3 0.49944; d3en 0.52572;
dl1 0.546208; f1 0.825; f2 0.33; g2 0.325; g3 0.285; g3s 0.75; g4ad 0.21675 2xlarge=2.4967
xlarge=1.7464; g4dn 0.272 12xlarge=14.382 2xlarge=2.7647 4xlarge=4.4265 metal=28.765 xlarge=1.9338;
g5 0.339333 12xlarge=16.715 16xlarge=12.071 2xlarge=3.5717 4xlarge=4.7859 8xlarge=7.2142
xlarge=2.9646; g5g 0.1715 2xlarge=3.242 4xlarge=4.828 metal=16 xlarge=2.449; g6 0.278133
12xlarge=16.545 16xlarge=12.213 2xlarge=3.5149 4xlarge=4.7574 8xlarge=7.2426 xlarge=2.8936; g6e
0.627733 12xlarge=16.715 16xlarge=12.071 2xlarge=3.5717 4xlarge=4.7859 8xlarge=7.2141 xlarge=2.9646;
g6f 0.2375 large=0.85053; g7 0.594027 2xlarge=4.2422 4xlarge=5.1211 8xlarge=6.8789; g7e 0.690506
2xlarge=4.8705 4xlarge=5.7902 8xlarge=7.6295; gr6 0.3848 8xlarge=6.3576; gr6f 0.2665; h1 0.234;
hpc7g 0.1052 4xlarge=16 8xlarge=16; i2 0.8525; i3 0.312 metal=16; i3en 0.452 metal=24; i4g 0.30888;
i4i 0.3432 metal=31.999; i7i 0.377521 metal-24xl=25.483 metal-48xl=50.966; i7ie 0.5198
metal-24xl=25.557 metal-48xl=51.113; i8g 0.3432 metal-24xl=26.4 metal-48xl=52.8; i8ge 0.4746
metal-24xl=25.561 metal-48xl=51.122; im4gn 0.363792; inf1 0.196708 2xlarge=1.8403 xlarge=1.1591;
inf2 0.270444 8xlarge=7.2764 xlarge=2.8035; is4gen 0.5763; m1 0.35 medium=0.24857 small=0.12571; m2
0.245; m3 0.266 medium=0.25188; m4 0.2; m5 0.192 metal=24; m5a 0.172; m5ad 0.206; m5d 0.226
metal=24; m5dn 0.272 metal=24; m5n 0.238 metal=24; m5zn 0.330342 metal=13.2; m6a 0.1728 metal=48;
m6g 0.154 metal=16.956; m6gd 0.1808 metal=16.96; m6i 0.192 metal=32; m6id 0.2373 metal=32; m6idn
0.318241 metal=32; m6in 0.27846 metal=32; m7a 0.23184 metal-48xl=48; m7g 0.1632 metal=16; m7gd
0.213569 metal=16; m7i 0.2016 metal-24xl=26.4 metal-48xl=48; m7i-flex 0.19152; m8a 0.24344
metal-24xl=26.4 metal-48xl=48; m8azn 0.41292 metal-12xl=13.2 metal-24xl=26.4; m8g 0.17952
metal-24xl=26.4 metal-48xl=48; m8gb 0.291 metal-24xl=50.88 metal-48xl=48; m8gd 0.23064
metal-24xl=26.4 metal-48xl=48; m8gn 0.291 metal-24xl=25.44 metal-48xl=48; m8i 0.21168 metal-48xl=48
metal-96xl=96; m8i-flex 0.2011; m8ib 0.33416 metal-48xl=52.8 metal-96xl=96; m8id 0.26104
metal-48xl=48 metal-96xl=96; m8idb 0.38188 metal-48xl=52.8 metal-96xl=96; m8idn 0.38188
metal-48xl=52.8 metal-96xl=96; m8in 0.33416 metal-48xl=52.8 metal-96xl=96; m8ine 0.4177; m9g 0.19568
metal-48xl=52.8; m9gd 0.2514 metal-48xl=52.8; p2 0.9; p3 1.53; p3dn 1.3005; p4d 0.9149; p4de
1.14363; p5 1.14667 4xlarge=6; p5en 1.31867; p6-b200 2.3736; p6-b300 2.967; r3 0.3325; r4 0.266; r5
0.252 metal=24; r5a 0.226; r5ad 0.262; r5b 0.298 metal=26.4; r5d 0.288 metal=24; r5dn 0.334
metal=24; r5n 0.298 metal=24; r6a 0.2268 metal=48; r6g 0.2016 metal=16.96; r6gd 0.2304 metal=16.96;
r6i 0.252 metal=32; r6id 0.3024 metal=32; r6idn 0.390781 metal=32; r6in 0.348659 metal=32; r7a
0.3043 metal-48xl=48; r7g 0.2142 metal=16; r7gd 0.272162 metal=16; r7i 0.2646 metal-24xl=26.4
metal-48xl=48; r7iz 0.372 metal-16xl=17.6 metal-32xl=35.2; r8a 0.319521 metal-24xl=26.4
metal-48xl=48; r8g 0.23564 metal-24xl=26.4 metal-48xl=48; r8gb 0.36436 metal-24xl=50.88
metal-48xl=48; r8gd 0.293921 metal-24xl=26.4 metal-48xl=48; r8gn 0.36436 metal-24xl=25.44
metal-48xl=48; r8i 0.27784 metal-48xl=52.8 metal-96xl=96; r8i-flex 0.26394; r8ib 0.4184
metal-48xl=52.8 metal-96xl=96; r8id 0.33264 metal-48xl=52.8 metal-96xl=96; r8idb 0.46894
metal-48xl=52.8 metal-96xl=96; r8idn 0.46894 metal-48xl=52.8 metal-96xl=96; r8in 0.4184
metal-48xl=52.8 metal-96xl=96; t1 0.32; t2 0.1856 small=0.12392; t3 0.1664; t3a 0.1504; t4g 0.1344;
trn1 0.671875; trn1n 0.774375; u-12tb1 0.975; u-18tb1 1.4625; u-24tb1 1.95; u-3tb1 0.4875; u-6tb1
0.4875 56xlarge=95.187; u-9tb1 0.73125; u7i-12tb 0.560634; u7i-6tb 0.560625; u7i-8tb 0.7475;
u7in-16tb 0.805696; u7in-24tb 1.20862; u7in-32tb 1.61155; vt1 0.216667; x1 0.416812; x1e 0.834; x2gd
0.334 metal=17.6; x2idn 0.416812 metal=32; x2iedn 0.833625 metal=32; x2iezn 0.834 metal=12; x8g
0.3908 metal-24xl=26.4 metal-48xl=48; x8i 0.437659 96xlarge=111.38 metal-48xl=52.8
metal-96xl=111.38; z1d 0.372 metal=12
"""
