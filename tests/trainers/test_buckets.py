from PIL import Image

from trainers.buckets import Bucket, fit, make_buckets, nearest_bucket


def test_buckets_keep_the_area_and_come_in_both_orientations():
    buckets = make_buckets(512, 256, 1024, 64)
    assert Bucket(256, 1024) in buckets and Bucket(512, 512) in buckets and Bucket(640, 384) in buckets
    assert {Bucket(b.height, b.width) for b in buckets} == set(buckets)
    assert all(b.width * b.height <= 512 * 512 and b.width % 64 == b.height % 64 == 0 for b in buckets)


def test_a_picture_goes_to_the_bucket_of_its_shape():
    buckets = make_buckets(512, 256, 1024, 64)
    assert nearest_bucket(1000, 1000, buckets) == Bucket(512, 512)
    assert nearest_bucket(1600, 900, buckets) == Bucket(640, 384)
    assert nearest_bucket(100, 1000, buckets) == Bucket(256, 1024)


def test_a_resolution_below_the_step_still_has_a_bucket():
    assert make_buckets(32, 16, 64, 64) == [Bucket(64, 64)]


def test_a_picture_is_scaled_to_cover_and_cut_in_the_middle():
    image = Image.new("RGB", (400, 100))
    image.paste((255, 255, 255), (150, 0, 250, 100))
    cut = fit(image, Bucket(64, 64))
    assert cut.size == (64, 64)
    assert cut.getpixel((32, 32)) == (255, 255, 255)
